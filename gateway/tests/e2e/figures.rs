//! What a step has measured: one line for people, one JSON object for `cargo xtask walk`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

/// The figures of one step.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    step: u32,
    title: String,
    full: bool,
    took_s: f64,
    figures: Vec<Figure>,
}

/// One figure, beside kube-proxy's of the same run where there is one.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    portolan: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kube_proxy: Option<String>,
}

impl Figures {
    pub(crate) fn new(step: u32, title: &str, full: bool) -> Figures {
        Figures { step, title: title.to_owned(), full, took_s: 0.0, figures: Vec::new() }
    }

    /// Notes a figure.
    pub(crate) fn note(&mut self, what: &str, value: impl ToString) {
        self.figures.push(Figure { what: what.to_owned(), portolan: value.to_string(), kube_proxy: None });
    }

    /// Notes a figure beside kube-proxy's own.
    pub(crate) fn beside(&mut self, what: &str, portolan: impl ToString, kube_proxy: impl ToString) {
        let kube_proxy = Some(kube_proxy.to_string());
        self.figures.push(Figure { what: what.to_owned(), portolan: portolan.to_string(), kube_proxy });
    }

    /// Prints the line, and hands the figures on where somebody asked for them.
    ///
    /// # Errors
    /// When the file of the variable `PORTOLAN_WALK_FIGURES` cannot be written.
    #[allow(clippy::disallowed_methods, reason = "the runner of the walk speaks by it")]
    pub(crate) fn publish(mut self, took: Duration) -> Result<()> {
        self.took_s = took.as_secs_f64();
        let shown: Vec<_> = self.figures.iter().map(Figure::shown).collect();
        println!("step {:<2} {} ({:.0} s): {}", self.step, self.title, self.took_s, shown.join("; "));
        if let Some(path) = std::env::var_os("PORTOLAN_WALK_FIGURES") {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{}", serde_json::to_string(&self)?)?;
        }
        Ok(())
    }
}

impl Figure {
    fn shown(&self) -> String {
        let Figure { what, portolan, kube_proxy } = self;
        match kube_proxy {
            None => format!("{what} {portolan}"),
            Some(kube_proxy) => format!("{what} {portolan} (kube-proxy {kube_proxy})"),
        }
    }
}

/// A time as the figures show it.
pub(crate) fn time(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 1e3 { format!("{milliseconds:.0} ms") } else { format!("{:.1} s", milliseconds / 1e3) }
}
