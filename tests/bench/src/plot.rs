//! Bar plots as SVG, in colours that can be read on light and on dark pages.

use std::fmt::Write as _;

use crate::{report::number, runner::Outcome, stats::Spread, subject::Group};

const WIDTH: f64 = 820.0;
const LABEL_WIDTH: f64 = 370.0;
const NUMBER_WIDTH: f64 = 80.0;
const BAR_HEIGHT: f64 = 14.0;
const STEP: f64 = 22.0;
const TOP: f64 = 34.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}\
.title{font-weight:600;font-size:13px}\
.floor{fill:#8c959f}.peer{fill:#57a0c8}.proglog{fill:#d9773a}\
.range{stroke:#24292f;stroke-width:1}\
@media (prefers-color-scheme:dark){text{fill:#d8dee6}.range{stroke:#d8dee6}}";

/// One bar a contender, with its range; none where only one has a number.
pub fn bars(outcome: &Outcome) -> Option<String> {
    let row = &outcome.row;
    let bars: Vec<(&str, Group, Spread)> = row
        .contenders
        .iter()
        .zip(&outcome.numbers)
        .filter_map(|(contender, numbers)| {
            let spread = Spread::of(numbers.as_ref().ok()?)?;
            Some((contender.name, contender.kind.group, spread))
        })
        .collect();
    if bars.len() < 2 {
        return None;
    }
    // What is far ahead of proglog and all peers would leave nothing to see of them.
    let most = bars
        .iter()
        .filter(|(name, ..)| *name != "memcpy")
        .map(|(_, _, spread)| spread.max)
        .fold(0.0, f64::max);
    let space = WIDTH - LABEL_WIDTH - NUMBER_WIDTH;
    let height = TOP + STEP * bars.len() as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"8\" y=\"20\">{}</text>\n",
        escape(&format!("{}, {}", row.title, axis(outcome)))
    );
    for (at, (name, group, spread)) in bars.iter().enumerate() {
        let y = TOP + STEP * at as f64;
        let x = |value: f64| LABEL_WIDTH + space * (value / most).clamp(0.0, 1.0);
        let class = match group {
            Group::Floor => "floor",
            Group::Proglog => "proglog",
            Group::Peer => "peer",
        };
        let middle = y + BAR_HEIGHT / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{LABEL_WIDTH}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\"/>\
             <line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LABEL_WIDTH - 8.0,
            y + 11.0,
            escape(name),
            (x(spread.median) - LABEL_WIDTH).max(0.5),
            x(spread.min),
            x(spread.max),
            x(spread.max) + 6.0,
            y + 11.0,
            escape(&number(spread.median, row.unit)),
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn axis(outcome: &Outcome) -> &'static str {
    use crate::rows::Unit;
    match outcome.row.unit {
        Unit::Records => "records/s: more is better",
        Unit::MiB { .. } => "MiB/s: more is better",
        Unit::Milliseconds => "ms: less is better",
        Unit::Times => "× the payload: less is better",
        Unit::Memory => "MiB: less is better",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
