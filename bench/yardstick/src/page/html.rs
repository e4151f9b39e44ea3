//! The frame of the page: headings, machine, plots with their figures, tables, commands. The page's `render` calls it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Command, Page, Plot, Point, Table, Tone, plot};
use crate::sample::show_size;

/// The whole style: follows the reader's choice of light or dark.
const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1c2430;--bg:#fff;--faint:#68707c;--line:#d9dde3;--good:#12743b;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--fg:#e4e7ec;--bg:#14181f;--faint:#9aa3af;--line:#343b46;--good:#62c48a;--bad:#ff8a80}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1100px;margin:2em auto;padding:0 1em}\
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}figure{margin:2em 0}figcaption{font-weight:600;margin-bottom:.4em}\
.plot{width:100%;height:auto}.grid{stroke:var(--line);stroke-width:1}.mark{fill:var(--faint);font:12px system-ui,sans-serif}\
.ring{opacity:0}.dot:hover .ring{opacity:.3}.legend{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2em 1.6em}\
.swatch{width:34px;height:10px;margin-right:.5em}.absent>span:first-of-type{text-decoration:line-through}\
.faint{color:var(--faint)}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}\
th,td{padding:.2em .7em;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;font-variant-numeric:tabular-nums}\
th.word,td.word{text-align:left}code{font:12px ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}\
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1.2em}dt{color:var(--faint)}dd{margin:0}";

pub(super) fn page(page: &Page) -> String {
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { (page.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (page.title) }
                @for note in &page.notes { p { (note) } }
                h2 { "The machine" }
                dl { @for (name, value) in &page.machine { dt { (name) } dd { (value) } } }
                @if !page.plots.is_empty() {
                    h2 { "Over message size" }
                    p .faint {
                        "Both axes are logarithmic. Solid lines are Sinew, dashed lines are its peers, dotted lines are the bare \
                         mechanism. Point at a dot for its value; all figures stand in the table below each plot."
                    }
                    @for one in &page.plots { (plot::draw(one)) (figures(one)) }
                }
                @for one in &page.tables { (table(one)) }
                @if !page.commands.is_empty() { (commands(&page.commands)) }
            }
        }
    };
    whole.into_string()
}

/// The figures of a plot: a row for each size.
fn figures(plot: &Plot) -> Markup {
    let mut sizes: Vec<usize> =
        plot.series.iter().flat_map(|series| &series.points).map(|point| point.size_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let cell = |points: &[Point], size: usize| {
        let found = points.iter().find(|point| point.size_bytes == size && point.is_drawn());
        found.map_or_else(|| "absent".into(), |point| plot.unit.show(point.value))
    };
    html! {
        details {
            summary { "figures" }
            div .wide {
                table {
                    tr { th .word { "size" } @for series in &plot.series { th { (series.name) } } }
                    @for size in sizes {
                        tr {
                            td .word { (show_size(size)) }
                            @for series in &plot.series { td { (cell(&series.points, size)) } }
                        }
                    }
                }
            }
        }
    }
}

fn table(table: &Table) -> Markup {
    html! {
        h2 { (table.title) }
        div .wide {
            table {
                tr {
                    @for (place, name) in table.columns.iter().enumerate() {
                        th .word[place < table.words] { (name) }
                    }
                }
                @for (cells, tone) in &table.rows {
                    tr {
                        @for (place, cell) in cells.iter().enumerate() {
                            @let tone = if place + 1 == cells.len() { tone_class(*tone) } else { "" };
                            @let word = if place < table.words { "word" } else { "" };
                            td class=(format!("{word} {tone}").trim()) { (cell) }
                        }
                    }
                }
            }
        }
    }
}

const fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Faint => "faint",
    }
}

fn commands(commands: &[Command]) -> Markup {
    html! {
        h2 { "What was run" }
        details {
            summary { "every command, exactly" }
            dl {
                @for command in commands {
                    dt { (command.what) " · " (command.who) }
                    dd {
                        @if command.is_reason { span .faint { (command.words) } }
                        @else { code { (command.words) } }
                    }
                }
            }
        }
    }
}
