//! Rules by path, within one host.
//!
//! An exact path is one look-up. A prefix ends at a segment, so the prefixes that can match a path end where it has a
//! slash or its end: one look-up for each, and only for depths at which there is a prefix at all. So the cost follows
//! the depth of the prefixes, not their number. What says nothing about the path, or says it by a regular expression,
//! stands in a list.

use std::mem;
use std::sync::Arc;

use portolan_model::PathMatch;

use super::RequestView;
use super::compile::CompiledRule;

/// The alternatives of some rules, by path.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    /// Those for any path or by regular expression.
    open: Candidates,
    /// Those by path; most hosts have none.
    by_path: Option<Box<ByPath>>,
    /// The rule of the lowest rank in here: if even that comes too late, nothing in here has to be looked at.
    first: Option<Arc<CompiledRule>>,
}

#[derive(Debug, Default)]
struct ByPath {
    exact: foldhash::HashMap<Box<str>, Candidates>,
    prefixes: foldhash::HashMap<Box<str>, Candidates>,
    /// Bit `n` is set if there is a prefix of `n` segments; the last bit stands for all that are deeper.
    depths: u64,
}

/// Alternatives with the same key, by the rank of their rules. Nearly always one.
#[derive(Debug, Default)]
enum Candidates {
    #[default]
    None,
    One(Candidate),
    Many(Vec<Candidate>),
}

/// One alternative of one rule.
#[derive(Debug)]
struct Candidate {
    rule: Arc<CompiledRule>,
    alternative: u32,
}

impl PathIndex {
    /// Adds every alternative of a rule.
    pub(super) fn add(&mut self, rule: &Arc<CompiledRule>) {
        for (alternative, said) in (0..).zip(&rule.matches) {
            let candidate = Candidate { rule: Arc::clone(rule), alternative };
            match said.plain_path() {
                Some(PathMatch::Exact(path)) => {
                    self.by_path().exact.entry(path.as_str().into()).or_default().add(candidate);
                }
                Some(PathMatch::Prefix(prefix)) => {
                    let by_path = self.by_path();
                    by_path.depths |= 1 << depth_bit(segments(prefix));
                    by_path.prefixes.entry(prefix.as_str().into()).or_default().add(candidate);
                }
                Some(PathMatch::Any | PathMatch::Regex(_)) | None => self.open.add(candidate),
            }
        }
        if !rule.matches.is_empty() && self.first.as_ref().is_none_or(|first| rule.order(first).is_lt()) {
            self.first = Some(Arc::clone(rule));
        }
    }

    /// Puts the rule that matches in `best` if it comes before the one that is there.
    pub(super) fn find<'a>(&'a self, request: &RequestView<'_>, best: &mut Option<&'a Arc<CompiledRule>>) {
        let Some(first) = &self.first else { return };
        if best.is_some_and(|best| best.order(first).is_lt()) {
            return;
        }
        self.open.find(request, best);
        if let Some(by_path) = &self.by_path {
            by_path.find(request, best);
        }
    }

    fn by_path(&mut self) -> &mut ByPath {
        self.by_path.get_or_insert_default()
    }
}

// === impl ByPath ===

impl ByPath {
    fn find<'a>(&'a self, request: &RequestView<'_>, best: &mut Option<&'a Arc<CompiledRule>>) {
        let path = request.path;
        if let Some(candidates) = self.exact.get(path) {
            candidates.find(request, best);
        }
        for (depth, end) in ends(path).enumerate() {
            let deeper = u64::MAX << depth_bit(depth);
            if self.depths & deeper == 0 {
                return;
            }
            if self.depths & (1 << depth_bit(depth)) != 0
                && let Some(candidates) = self.prefixes.get(&path[..end])
            {
                candidates.find(request, best);
            }
        }
    }
}

/// Where a prefix can end in a path: before each slash, and at its end.
fn ends(path: &str) -> impl Iterator<Item = usize> {
    let mut from = Some(0);
    std::iter::from_fn(move || {
        let start = from?;
        let slash = path.as_bytes()[start..].iter().position(|&byte| byte == b'/');
        from = slash.map(|slash| start + slash + 1);
        Some(slash.map_or(path.len(), |slash| start + slash))
    })
}

/// The number of slashes: a prefix of so many is looked up at the end of a path's segment of that number.
fn segments(prefix: &str) -> usize {
    prefix.bytes().filter(|&byte| byte == b'/').count()
}

fn depth_bit(depth: usize) -> u32 {
    depth.min(63) as u32
}

// === impl Candidates ===

impl Candidates {
    fn add(&mut self, candidate: Candidate) {
        *self = match mem::take(self) {
            Self::None => Self::One(candidate),
            Self::One(one) => Self::Many(vec![one]).with(candidate),
            many @ Self::Many(_) => many.with(candidate),
        };
    }

    fn with(mut self, candidate: Candidate) -> Self {
        if let Self::Many(all) = &mut self {
            let at = all.partition_point(|other| other.rule.order(&candidate.rule).is_lt());
            all.insert(at, candidate);
        }
        self
    }

    fn find<'a>(&'a self, request: &RequestView<'_>, best: &mut Option<&'a Arc<CompiledRule>>) {
        for candidate in self.as_slice() {
            if best.is_some_and(|best| best.order(&candidate.rule).is_lt()) {
                return;
            }
            if candidate.rule.matches[candidate.alternative as usize].rest_matches(request) {
                *best = Some(&candidate.rule);
                return;
            }
        }
    }

    fn as_slice(&self) -> &[Candidate] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(all) => all,
        }
    }
}
