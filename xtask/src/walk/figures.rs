//! The figures of the steps, as gateway/tests/e2e hands them over.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The figures of one step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) step: u32,
    pub(crate) title: String,
    /// Whether these are the full numbers.
    pub(crate) full: bool,
    pub(crate) took_s: f64,
    pub(crate) figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) portolan: String,
    /// That of a plain Service on kube-proxy in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kube_proxy: Option<String>,
}

impl Figures {
    /// One JSON object a line, by step; none when no step passed. The parts of one step become one.
    ///
    /// # Errors
    /// When a line is not such an object.
    pub(crate) fn read(path: &Path) -> Result<Vec<Figures>> {
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

    /// For the terminal.
    pub(crate) fn line(&self) -> String {
        let shown: Vec<_> = self.figures.iter().map(Figure::shown).collect();
        format!("step {:<2} {} ({:.0} s): {}", self.step, self.title, self.took_s, shown.join("; "))
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
