//! The page: measurements as one HTML file that needs no network, no script and no other file.
//! `sinew-bench --html` and `sinew perf --html` fill a [`Page`] and write [`Page::render`]. It measures nothing, and every
//! word that it is given is text: names, commands and errors cannot become markup.

mod html;
mod plot;
mod scale;

use crate::sample::Unit;

/// All that stands on the page, in this order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The heading.
    pub title: String,
    /// Paragraphs below the heading: how it was measured, what to think of the figures.
    pub notes: Vec<String>,
    /// What the machine is: names and values.
    pub machine: Vec<(String, String)>,
    /// Figures over message size.
    pub plots: Vec<Plot>,
    /// Tables below the plots.
    pub tables: Vec<Table>,
    /// What was run, exactly.
    pub commands: Vec<Command>,
}

impl Page {
    /// The page as the text of an HTML file.
    pub fn render(&self) -> String {
        html::page(self)
    }
}

/// One plot over size, both axes logarithmic.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What is shown.
    pub title: String,
    /// What the figures are counted in.
    pub unit: Unit,
    /// The lines of the plot.
    pub series: Vec<Series>,
}

/// Whose figures a line of a plot shows; it decides how the line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sinew: a solid line.
    Ours,
    /// Somebody else's library: a dashed line.
    Peer,
    /// The mechanism alone, the limit: a dotted line.
    Raw,
}

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Whose it is.
    pub role: Role,
    /// Its figures, in any order of sizes.
    pub points: Vec<Point>,
    /// Why it has none, or lacks some: shown in the legend.
    pub absence: Option<String>,
}

/// One figure. A value that is not a positive number is drawn as absent: the line has a gap there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Bytes of one message.
    pub size_bytes: usize,
    /// The figure, in the plot's unit.
    pub value: f64,
    /// The lowest and the highest of the rounds that it is the median of.
    pub spread: Option<(f64, f64)>,
}

impl Point {
    /// Whether a logarithmic axis has a place for it.
    fn is_drawn(&self) -> bool {
        self.value.is_finite() && self.value > 0.0
    }
}

/// How a row of a table is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// A promise kept.
    Good,
    /// A promise broken.
    Bad,
    /// Nothing to judge.
    Faint,
}

/// A table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows; the last cell of each carries the tone.
    pub rows: Vec<(Vec<String>, Tone)>,
    /// How many columns, from the first, are words; the others are figures, aligned right.
    pub words: usize,
}

/// One command that was run, or the reason why it was not.
#[derive(Debug, Clone)]
pub struct Command {
    /// What it measured.
    pub what: String,
    /// Who it is.
    pub who: String,
    /// The words as a shell would take them, or the reason.
    pub words: String,
    /// Whether `words` is a reason.
    pub is_reason: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(size_bytes: usize, value: f64) -> Point {
        Point { size_bytes, value, spread: Some((value * 0.9, value * 1.1)) }
    }

    fn page(points: Vec<Point>, name: &str, absence: Option<&str>) -> String {
        let series =
            Series { name: name.into(), role: Role::Peer, points, absence: absence.map(ToString::to_string) };
        let plot = Plot { title: "latency <&> size".into(), unit: Unit::LatencyNs, series: vec![series] };
        let words = format!("echo '{name}' && \"x\"");
        Page {
            title: "Title".into(),
            machine: vec![("processor".into(), "<script>alert(1)</script>".into())],
            plots: vec![plot],
            tables: vec![Table {
                title: "Verdicts".into(),
                columns: vec!["line".into(), "verdict".into()],
                rows: vec![(vec!["S1".into(), "MISSED".into()], Tone::Bad)],
                words: 2,
            }],
            commands: vec![Command { what: "S1".into(), who: name.into(), words, is_reason: false }],
            ..Page::default()
        }
        .render()
    }

    /// The numbers of every attribute that places something.
    fn coordinates(page: &str) -> Vec<f64> {
        let svg = page.split("<svg").nth(1).and_then(|rest| rest.split("</svg>").next()).expect("a plot");
        let mut found = Vec::new();
        for attribute in ["cx=\"", "cy=\"", "x1=\"", "y1=\"", "points=\""] {
            for rest in svg.split(attribute).skip(1) {
                let value = rest.split('"').next().unwrap_or_default();
                let numbers = value.split([' ', ',']).map(|one| one.parse::<f64>().expect(value));
                found.extend(numbers);
            }
        }
        found
    }

    #[test]
    fn what_it_is_given_never_becomes_markup() {
        let text = page(vec![point(8, 100.0)], "<b>\"'&</b>", Some("</svg><script>"));
        assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
        assert!(text.contains("&lt;script&gt;alert(1)"));
        assert!(text.contains("latency &lt;&amp;&gt; size"));
    }

    #[test]
    fn it_needs_nothing_from_elsewhere() {
        let text = page(vec![point(8, 100.0), point(64, 90.0)], "peer", None);
        for word in ["http:", "https:", "src=", "href=", "@import", "url(", "<link", "<script"] {
            assert!(!text.contains(word), "{word}");
        }
        assert!(text.starts_with("<!DOCTYPE html>"));
    }

    #[test]
    fn figures_that_are_none_are_gaps_and_never_coordinates() {
        let values = [f64::NAN, f64::INFINITY, 0.0, -1.0, f64::NEG_INFINITY];
        let mut points: Vec<Point> =
            values.iter().enumerate().map(|(place, value)| point(8 << place, *value)).collect();
        points.push(point(4096, 250.0));
        let text = page(points, "peer", Some("runs on even days only"));
        assert!(!text.contains("NaN") && !text.contains("inf\"") && !text.contains("nan"), "{text}");
        assert!(coordinates(&text).iter().all(|one| one.is_finite() && *one >= 0.0));
        assert_eq!(text.matches("<circle").count(), 2, "one point, and the ring that shows its value");
        assert!(text.contains("runs on even days only"));
    }

    #[test]
    fn a_peer_without_figures_is_named_with_the_reason_and_an_empty_plot_says_so() {
        let text = page(Vec::new(), "UCX", Some("ucx_perftest is absent"));
        assert!(text.contains("UCX") && text.contains("ucx_perftest is absent"));
        assert!(text.contains("nothing was measured"));
    }

    #[test]
    fn every_point_shows_its_value_when_it_is_pointed_at() {
        let text = page(vec![point(65536, 9100.0)], "Sinew", None);
        assert!(text.contains("<title>Sinew, 64 KiB: 9.10 µs (8.19 µs to 10.0 µs)</title>"), "{text}");
    }

    #[test]
    fn a_message_of_no_bytes_and_one_single_size_have_their_place() {
        for sizes in [vec![0], vec![0, 8, 64], vec![8]] {
            let text = page(sizes.into_iter().map(|size| point(size, 5.0)).collect(), "Sinew", None);
            assert!(coordinates(&text).iter().all(|one| one.is_finite()));
        }
    }
}
