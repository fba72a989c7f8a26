//! Lines over an axis, as an SVG that stands on its own in a page.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;

/// One picture.
#[derive(Debug)]
pub(super) struct Plot<'a> {
    /// What it shows, for those who cannot see it.
    pub(super) about: &'a str,
    pub(super) x: Axis<'a>,
    pub(super) y: Axis<'a>,
    pub(super) lines: Vec<Line<'a>>,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Axis<'a> {
    pub(super) name: &'a str,
    /// Where it begins and ends; the begin of a logarithmic one is above 0.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) logarithmic: bool,
    /// What is written at which place; without them, round numbers.
    pub(super) marks: Vec<(f64, String)>,
}

/// One line; it is interrupted where there is no value.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// The class by which the page's style knows its colour.
    pub(super) class: &'a str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Axis<'_> {
    /// Where a value lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.logarithmic { value.max(self.from).ln() } else { value };
        let (from, to) = (scaled(self.from), scaled(self.to));
        if to > from { ((scaled(value) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 }
    }

    fn marks(&self) -> Vec<(f64, String)> {
        if !self.marks.is_empty() {
            return self.marks.clone();
        }
        let values = if self.logarithmic { decades(self.from, self.to) } else { steps(self.from, self.to) };
        values.into_iter().map(|value| (value, short(value))).collect()
    }
}

/// Round numbers in a range, about five.
fn steps(from: f64, to: f64) -> Vec<f64> {
    let rough = ((to - from) / 5.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|it| it * power).into_iter().find(|&it| it >= rough);
    let step = step.unwrap_or(power * 10.0);
    let first = (from / step).ceil() as i64;
    (first..).map(|number| number as f64 * step).take_while(|&value| value <= to).take(20).collect()
}

/// 1, 2, 5, 10, 20, … in a range; only the tens when it is wide.
fn decades(from: f64, to: f64) -> Vec<f64> {
    let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
    let within: &[f64] = if last - first > 3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    (first..=last)
        .flat_map(|power| within.iter().map(move |it| it * 10f64.powi(power)))
        .filter(|&value| value >= from && value <= to)
        .collect()
}

/// A number as short as it can be read: 1.5, 20, 30k.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = format!("{value:.3}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

impl Plot<'_> {
    /// The picture with its legend above.
    pub(super) fn svg(&self) -> String {
        let mut text = String::from("<p class=legend>");
        for line in &self.lines {
            text.push_str(&format!("<span class={}>{}</span> ", line.class, escaped(line.name)));
        }
        text.push_str("</p>\n");
        writeln!(
            text,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">",
            escaped(self.about)
        )
        .expect("a text takes all");
        self.grid(&mut text);
        for line in &self.lines {
            let path = self.path(line);
            writeln!(text, "<path class={} d=\"{path}\"/>", line.class).expect("a text takes all");
        }
        text.push_str("</svg>\n");
        text
    }

    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let across = LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT);
        (across, HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM))
    }

    fn grid(&self, text: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, name) in self.y.marks() {
            let (_, y) = self.at(self.x.from, value);
            writeln!(
                text,
                "<path class=grid d=\"M{LEFT} {y:.1}H{right}\"/><text x={} y={:.1} text-anchor=end>{}</text>",
                LEFT - 6.0,
                y + 4.0,
                escaped(&name)
            )
            .expect("a text takes all");
        }
        for (value, name) in self.x.marks() {
            let (x, _) = self.at(value, self.y.from);
            writeln!(
                text,
                "<path class=grid d=\"M{x:.1} {TOP}V{bottom}\"/><text x={x:.1} y={} text-anchor=middle>{}</text>",
                bottom + 15.0,
                escaped(&name)
            )
            .expect("a text takes all");
        }
        writeln!(
            text,
            "<text x={right} y={} text-anchor=end>{}</text><text x=4 y={}>{}</text>",
            HEIGHT - 5.0,
            escaped(self.x.name),
            HEIGHT - 5.0,
            escaped(self.y.name)
        )
        .expect("a text takes all");
    }

    fn path(&self, line: &Line<'_>) -> String {
        let mut path = String::new();
        let mut pen_is_down = false;
        for &(x, y) in &line.points {
            let Some(y) = y else {
                pen_is_down = false;
                continue;
            };
            let (x, y) = self.at(x, y);
            write!(path, "{}{x:.1} {y:.1}", if pen_is_down { 'L' } else { 'M' }).expect("a text takes all");
            pen_is_down = true;
        }
        path
    }
}

/// Text as it may stand in a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(from: f64, to: f64, logarithmic: bool) -> Axis<'static> {
        Axis { name: "ms", from, to, logarithmic, marks: Vec::new() }
    }

    #[test]
    fn marks_are_round() {
        let names = |axis: Axis<'_>| axis.marks().into_iter().map(|it| it.1).collect::<Vec<_>>().join(" ");
        assert_eq!(names(axis(0.0, 4.0, false)), "0 1 2 3 4");
        assert_eq!(names(axis(0.0, 73_000.0, false)), "0 20k 40k 60k");
        assert_eq!(names(axis(0.04, 3.0, true)), "0.05 0.1 0.2 0.5 1 2");
        assert_eq!(names(axis(0.1, 5000.0, true)), "0.1 1 10 100 1000");
        assert_eq!(names(axis(0.0, 0.0, false)), "0");
    }

    #[test]
    fn a_line_is_interrupted_where_nothing_was_seen() {
        let points =
            vec![(0.0, Some(0.0)), (1.0, Some(10.0)), (2.0, None), (3.0, Some(5.0)), (4.0, Some(99.0))];
        let lines = vec![Line { name: "a < b", class: "p99", points }];
        let plot = Plot { about: "\"q\"", x: axis(0.0, 4.0, false), y: axis(0.0, 10.0, false), lines };
        let svg = plot.svg();
        let path = svg.split("<path class=p99 d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(
            path, "M64.0 224.0L259.0 12.0M649.0 118.0L844.0 12.0",
            "and what is too high stays inside"
        );
        assert!(svg.contains("a &lt; b") && svg.contains("&quot;q&quot;"), "{svg}");
    }
}
