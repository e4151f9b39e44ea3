//! One plot as SVG: axes, lines, points that show their values, and the legend beside it. The page calls it.

use maud::{Markup, html};

use super::scale::{Axis, round_ends};
use super::{Plot, Point, Role, Series};
use crate::sample::show_size;

/// The drawing, in its own units; the page scales it.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 420.0;
/// Room for the marks of the axes.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 880.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 376.0;
/// Most marks of the size axis.
const SIZES_MAX: usize = 14;
/// Colours that people of all kinds of sight tell apart (Okabe and Ito), by role: ours, peers, raw.
const OURS: [&str; 5] = ["#0072b2", "#009e73", "#56b4e9", "#1b7f9c", "#3f3fbf"];
const PEERS: [&str; 5] = ["#d55e00", "#cc79a7", "#e69f00", "#a6431f", "#9a4f8f"];
const RAW: [&str; 3] = ["#6b6b6b", "#9a9a9a", "#4d5a66"];

/// Where everything lies.
struct Frame {
    sizes: Vec<usize>,
    x: Axis,
    y: Axis,
}

/// Where a size of nothing lies: a step left of the smallest, as a logarithm has no place for it.
fn place_of_size(sizes: &[usize], size: usize) -> f64 {
    let smallest = sizes.iter().copied().find(|size| *size > 0).unwrap_or(4);
    if size > 0 { size as f64 } else { smallest as f64 / 4.0 }
}

impl Frame {
    /// `None` when there is nothing to draw.
    fn of(plot: &Plot) -> Option<Self> {
        let drawn: Vec<&Point> =
            plot.series.iter().flat_map(|series| &series.points).filter(|point| point.is_drawn()).collect();
        let mut sizes: Vec<usize> = drawn.iter().map(|point| point.size_bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let (first, last) = (*sizes.first()?, *sizes.last()?);
        let low = drawn.iter().map(|point| point.value).fold(f64::INFINITY, f64::min);
        let high = drawn.iter().map(|point| point.value).fold(0.0, f64::max);
        let (low, high) = round_ends(low, high);
        let x =
            Axis::new(place_of_size(&sizes, first), place_of_size(&sizes, last), (LEFT + 14.0, RIGHT - 14.0));
        let y = Axis::new(low, high, (BOTTOM, TOP));
        Some(Self { sizes, x, y })
    }

    fn place(&self, point: &Point) -> (f64, f64) {
        (self.x.place(place_of_size(&self.sizes, point.size_bytes)), self.y.place(point.value))
    }
}

/// How one line looks.
struct Look {
    colour: &'static str,
    dashes: &'static str,
    width: &'static str,
}

fn looks(series: &[Series]) -> Vec<Look> {
    let mut used = [0; 3];
    series
        .iter()
        .map(|one| {
            let (kind, colours, dashes, width): (usize, &[&str], _, _) = match one.role {
                Role::Ours => (0, &OURS, "none", "2.6"),
                Role::Peer => (1, &PEERS, "7 4", "1.8"),
                Role::Raw => (2, &RAW, "2 3", "1.8"),
            };
            let colour = colours[used[kind] % colours.len()];
            used[kind] += 1;
            Look { colour, dashes, width }
        })
        .collect()
}

/// The plot with its legend.
pub(super) fn draw(plot: &Plot) -> Markup {
    let looks = looks(&plot.series);
    html! {
        figure {
            figcaption { (plot.title) }
            @match Frame::of(plot) {
                Some(frame) => (drawing(plot, &frame, &looks)),
                None => p .faint { "nothing was measured" },
            }
            ul .legend {
                @for (series, look) in plot.series.iter().zip(&looks) { (legend(series, look)) }
            }
        }
    }
}

fn legend(series: &Series, look: &Look) -> Markup {
    let has_none = !series.points.iter().any(Point::is_drawn);
    html! {
        li .absent[has_none] {
            svg .swatch viewBox="0 0 34 10" {
                line x1="0" y1="5" x2="34" y2="5" stroke=(look.colour) stroke-width=(look.width)
                    stroke-dasharray=(look.dashes) {}
            }
            span { (series.name) }
            @if let Some(reason) = &series.absence { span .faint { " (absent: " (reason) ")" } }
            @else if has_none { span .faint { " (absent)" } }
        }
    }
}

fn drawing(plot: &Plot, frame: &Frame, looks: &[Look]) -> Markup {
    html! {
        svg .plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(plot.title) {
            (axes(plot, frame))
            @for (series, look) in plot.series.iter().zip(looks) {
                @for part in parts(series) {
                    polyline points=(path(frame, &part)) fill="none" stroke=(look.colour)
                        stroke-width=(look.width) stroke-dasharray=(look.dashes) {}
                }
            }
            // Points last, so that no line covers what can be pointed at.
            @for (series, look) in plot.series.iter().zip(looks) {
                @for point in series.points.iter().filter(|point| point.is_drawn()) {
                    (dot(plot, frame, series, look, point))
                }
            }
        }
    }
}

fn axes(plot: &Plot, frame: &Frame) -> Markup {
    let every = frame.sizes.len().div_ceil(SIZES_MAX).max(1);
    html! {
        @for mark in frame.y.marks() {
            @let y = frame.y.place(mark);
            line .grid x1=(LEFT) y1=(y) x2=(RIGHT) y2=(y) {}
            text .mark x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (plot.unit.show(mark)) }
        }
        @for size in frame.sizes.iter().step_by(every) {
            @let x = frame.x.place(place_of_size(&frame.sizes, *size));
            line .grid x1=(x) y1=(TOP) x2=(x) y2=(BOTTOM) {}
            text .mark x=(x) y=(BOTTOM + 18.0) text-anchor="middle" { (show_size(*size)) }
        }
        text .mark x=((LEFT + RIGHT) / 2.0) y=(BOTTOM + 38.0) text-anchor="middle" { "message size" }
    }
}

/// The points in order of size, cut where a figure is absent.
fn parts(series: &Series) -> Vec<Vec<Point>> {
    let mut points = series.points.clone();
    points.sort_by_key(|point| point.size_bytes);
    let parts = points.split(|point| !point.is_drawn());
    parts.filter(|part| part.len() > 1).map(<[Point]>::to_vec).collect()
}

fn path(frame: &Frame, part: &[Point]) -> String {
    let places = part.iter().map(|point| {
        let (x, y) = frame.place(point);
        format!("{x},{y}")
    });
    places.collect::<Vec<_>>().join(" ")
}

/// A point, and a wider ring around it that is easier to point at.
fn dot(plot: &Plot, frame: &Frame, series: &Series, look: &Look, point: &Point) -> Markup {
    let (x, y) = frame.place(point);
    html! {
        g .dot {
            title { (words(plot, series, point)) }
            circle .ring cx=(x) cy=(y) r="11" fill=(look.colour) {}
            circle cx=(x) cy=(y) r="3.4" fill=(look.colour) {}
        }
    }
}

fn words(plot: &Plot, series: &Series, point: &Point) -> String {
    let show = |value| plot.unit.show(value);
    let value = format!("{}, {}: {}", series.name, show_size(point.size_bytes), show(point.value));
    match point.spread.filter(|(low, high)| low.is_finite() && high.is_finite()) {
        Some((low, high)) => format!("{value} ({} to {})", show(low), show(high)),
        None => value,
    }
}
