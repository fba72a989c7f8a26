//! What a step of the walk has measured: written by the step, read by `cargo xtask walk`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The figures of one step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figures {
    /// The step's number.
    pub step: u32,
    /// What the step is about.
    pub title: String,
    /// Whether these are the full numbers.
    pub full: bool,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// In the order in which they were noted.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value through Portolan.
    pub portolan: String,
    /// That of a plain Service on kube-proxy in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<String>,
}

impl Figures {
    /// A step that has measured nothing yet.
    pub fn new(step: u32, title: &str, full: bool) -> Figures {
        Figures { step, title: title.to_owned(), full, took_s: 0.0, figures: Vec::new() }
    }

    /// Notes a figure.
    pub fn note(&mut self, what: &str, value: impl ToString) {
        self.figures.push(Figure { what: what.to_owned(), portolan: value.to_string(), kube_proxy: None });
    }

    /// Notes a figure beside kube-proxy's own.
    pub fn beside(&mut self, what: &str, portolan: impl ToString, kube_proxy: impl ToString) {
        let kube_proxy = Some(kube_proxy.to_string());
        self.figures.push(Figure { what: what.to_owned(), portolan: portolan.to_string(), kube_proxy });
    }

    /// For the terminal.
    pub fn line(&self) -> String {
        let shown: Vec<_> = self.figures.iter().map(Figure::shown).collect();
        format!("step {:<2} {} ({:.0} s): {}", self.step, self.title, self.took_s, shown.join("; "))
    }

    /// Adds them to a file of one JSON object a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, path: &Path) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }

    /// One JSON object a line, by step; none when no step passed. The parts of one step become one.
    ///
    /// # Errors
    /// When a line is not such an object.
    pub fn read(path: &Path) -> Result<Vec<Figures>> {
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("not figures: {line}"));
        let mut parts: Vec<Figures> = text.lines().map(parse).collect::<Result<_>>()?;
        parts.sort_by_key(|figures| figures.step);
        let mut steps: Vec<Figures> = Vec::new();
        for part in parts {
            match steps.last_mut().filter(|step| step.step == part.step) {
                Some(step) => step.join(part),
                None => steps.push(part),
            }
        }
        Ok(steps)
    }

    fn join(&mut self, part: Figures) {
        self.took_s += part.took_s;
        self.figures.extend(part.figures);
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
