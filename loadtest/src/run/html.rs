//! The report of `--html`: one page that needs nothing but itself.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use portolan_loadtest::measure::{Latency, Measured, Moment};

use super::plot::{Axis, Line, Plot, escaped};

const STYLE: &str = include_str!("report.css");

/// Writes the page.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(file: &Path, about: Option<&str>, measured: &Measured) -> anyhow::Result<()> {
    std::fs::write(file, page(about, measured)?).with_context(|| format!("cannot write {}", file.display()))
}

fn page(about: Option<&str>, measured: &Measured) -> anyhow::Result<String> {
    let about = about.map(|about| format!("<p>{}</p>\n", escaped(about))).unwrap_or_default();
    // Within a script, only this could end it.
    let data = serde_json::to_string(measured)?.replace("</", "<\\/");
    Ok(format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
         <title>{target}: load test</title>\n<style>\n{STYLE}</style>\n<h1>{target}</h1>\n{about}<pre>{summary}</pre>\n\
         <h2>Latency over time</h2>\n{latency}<h2>Throughput over time</h2>\n{throughput}<h2>Latency by share of requests</h2>\n\
         {quantiles}<script type=\"application/json\" id=measured>{data}</script>\n</html>\n",
        target = escaped(&measured.target),
        summary = escaped(&measured.to_string()),
        latency = latency(measured),
        throughput = throughput(measured),
        quantiles = quantiles(measured),
    ))
}

fn time(moments: &[Moment]) -> Axis<'static> {
    let end = moments.last().map_or(1.0, |last| last.at_seconds + last.seconds);
    Axis { name: "seconds", from: 0.0, to: end, logarithmic: false, marks: Vec::new() }
}

/// Milliseconds that hold all of these.
fn milliseconds(values: impl Iterator<Item = u64> + Clone) -> Axis<'static> {
    let seen = values.filter(|&micros| micros > 0);
    let (from, to) = (seen.clone().min().unwrap_or(1), seen.max().unwrap_or(1000));
    let (from, to) = (from as f64 / 1e3 * 0.8, to as f64 / 1e3 * 1.25);
    Axis { name: "ms", from, to, logarithmic: true, marks: Vec::new() }
}

fn latency(measured: &Measured) -> String {
    let moments = &measured.moments;
    let answered = moments.iter().filter(|moment| moment.answered > 0);
    let bounds = answered.flat_map(|moment| [moment.latency_us.p50, moment.latency_us.max]);
    let line = |name, class, of: fn(&Latency) -> u64| Line {
        name,
        class,
        points: moments
            .iter()
            .map(|moment| {
                let value = (moment.answered > 0).then(|| of(&moment.latency_us) as f64 / 1e3);
                (moment.at_seconds + moment.seconds / 2.0, value)
            })
            .collect(),
    };
    let lines = vec![
        line("p50", "p50", |it| it.p50),
        line("p99", "p99", |it| it.p99),
        line("longest", "max", |it| it.max),
    ];
    Plot { about: "Latency over time", x: time(moments), y: milliseconds(bounds), lines }.svg()
}

fn throughput(measured: &Measured) -> String {
    let moments = &measured.moments;
    let line = |name, class, of: fn(&Moment) -> u64| Line {
        name,
        class,
        points: moments
            .iter()
            .map(|moment| {
                (moment.at_seconds + moment.seconds / 2.0, Some(of(moment) as f64 / moment.seconds))
            })
            .collect(),
    };
    let lines =
        vec![line("answered", "answered", |it| it.answered), line("failed", "failed", |it| it.failed)];
    let highest = lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1).fold(1.0, f64::max);
    let y = Axis { name: "1/s", from: 0.0, to: highest * 1.1, logarithmic: false, marks: Vec::new() };
    Plot { about: "Requests a second over time", x: time(moments), y, lines }.svg()
}

/// Each further nine has the same room.
fn quantiles(measured: &Measured) -> String {
    let nines = |share: f64| -(1.0 - share.min(0.999_999)).log10();
    let points = &measured.quantiles;
    let mut marks = Vec::new();
    for (share, name) in
        [(0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")]
    {
        marks.push((nines(share), name.to_owned()));
    }
    let x = Axis { name: "of the requests", from: 0.0, to: 4.0, logarithmic: false, marks };
    let line = Line {
        name: "no longer than",
        class: "p99",
        points: points.iter().map(|it| (nines(it.share), Some(it.micros as f64 / 1e3))).collect(),
    };
    let y = milliseconds(points.iter().map(|it| it.micros));
    let mut text = Plot { about: "Latency by share of requests", x, y, lines: vec![line] }.svg();
    text.push_str("<table>\n<tr><th>requests</th><th>ms</th></tr>\n");
    for it in points {
        writeln!(text, "<tr><td>{} %</td><td>{:.3}</td></tr>", percent(it.share), it.micros as f64 / 1e3)
            .expect("a text takes all");
    }
    text.push_str("</table>\n");
    text
}

fn percent(share: f64) -> String {
    let digits = format!("{:.3}", share * 100.0);
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use portolan_loadtest::measure::{Plan, Protocol, Target, Trust};
    use portolan_loadtest::upstream::Upstream;

    use super::*;

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let upstream = Upstream::named("a").start().unwrap();
        let target =
            Target::parse(&format!("http://{}/?x=<b>", upstream.address()).replace("<b>", "%3Cb%3E"))
                .unwrap();
        let mut plan = Plan::to(&target, Protocol::Http1, &Trust::Anyone).unwrap();
        (plan.count, plan.connections) = (Some(200), 2);
        let measured = plan.start().unwrap().wait().unwrap();
        let page = page(Some("a </script> of sorts"), &measured).unwrap();
        assert_eq!(page.matches("<svg ").count(), 3, "{page}");
        assert!(page.contains("a &lt;/script&gt; of sorts"), "{page}");
        let own = format!("http://{}", upstream.address());
        let rest = page.replace(&own, "");
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!rest.contains(outside), "{outside} in {page}");
        }
        for class in ["p50", "p99", "max", "answered"] {
            let path = page.split(&format!("<path class={class} d=\"")).nth(1).unwrap();
            assert!(path.starts_with('M'), "{class} is drawn");
        }
        let data = page.split("id=measured>").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["answered"], 200);
    }
}
