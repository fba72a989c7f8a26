//! What a rule asks of a request beyond host and indexed path, ready to be tested.

use http::{HeaderMap, HeaderName, Method};
use portolan_model::{Match, NameValueMatch, PathMatch, ValueMatch};
use regex::bytes::{Regex, RegexBuilder};

use super::RequestView;

/// A regular expression may not take more memory than this when compiled: it comes from an object that somebody else
/// wrote.
const MOST_REGEX_BYTES: usize = 1 << 20;

/// One alternative of a rule. All of its parts must hold.
#[derive(Debug)]
pub(super) struct CompiledMatch {
    path: PathPredicate,
    method: Option<Method>,
    headers: Box<[(HeaderName, Value)]>,
    query: Box<[(Box<str>, Value)]>,
}

#[derive(Debug)]
enum PathPredicate {
    Plain(PathMatch),
    Regex(Regex),
}

#[derive(Debug)]
enum Value {
    Present,
    Exact(Box<[u8]>),
    Regex(Regex),
}

/// Why a match cannot be compiled: the field within the match, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The first part of a match that a request misses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Miss {
    Path,
    Method,
    Header(String),
    Query(String),
}

impl CompiledMatch {
    /// Compiles one alternative.
    ///
    /// # Errors
    /// The first part of it that is not sound.
    pub(super) fn new(said: &Match) -> Result<Self, Fault> {
        Ok(Self {
            path: path(&said.path)?,
            method: said.method.as_deref().map(method).transpose()?,
            headers: said.headers.iter().map(header).collect::<Result<_, _>>()?,
            query: said.query.iter().map(parameter).collect::<Result<_, _>>()?,
        })
    }

    /// What the path must be, where an index can decide it.
    pub(super) fn plain_path(&self) -> Option<&PathMatch> {
        match &self.path {
            PathPredicate::Plain(path) => Some(path),
            PathPredicate::Regex(_) => None,
        }
    }

    /// Whether the parts other than the path hold; the path, too, where no index can decide it.
    pub(super) fn rest_matches(&self, request: &RequestView<'_>) -> bool {
        let path_holds = match &self.path {
            PathPredicate::Plain(_) => true,
            PathPredicate::Regex(regex) => regex.is_match(request.path.as_bytes()),
        };
        path_holds && self.miss_beside_path(request).is_none()
    }

    /// The first part that does not hold, the path included.
    pub(super) fn miss(&self, request: &RequestView<'_>) -> Option<Miss> {
        let path_holds = match &self.path {
            PathPredicate::Plain(path) => path.matches(request.path).unwrap_or(false),
            PathPredicate::Regex(regex) => regex.is_match(request.path.as_bytes()),
        };
        if path_holds { self.miss_beside_path(request).map(Miss::from) } else { Some(Miss::Path) }
    }

    fn miss_beside_path(&self, request: &RequestView<'_>) -> Option<Part<'_>> {
        if self.method.as_ref().is_some_and(|method| method != request.method) {
            return Some(Part::Method);
        }
        if let Some((name, _)) =
            self.headers.iter().find(|(name, value)| !value.in_headers(name, request.headers))
        {
            return Some(Part::Header(name));
        }
        let query = request.query.unwrap_or_default();
        let missed = self.query.iter().find(|(name, value)| !value.in_query(name, query));
        missed.map(|(name, _)| Part::Query(name))
    }
}

/// A [`Miss`] that borrows, since the request path must not allocate.
enum Part<'a> {
    Method,
    Header(&'a HeaderName),
    Query(&'a str),
}

impl From<Part<'_>> for Miss {
    fn from(part: Part<'_>) -> Self {
        match part {
            Part::Method => Self::Method,
            Part::Header(name) => Self::Header(name.to_string()),
            Part::Query(name) => Self::Query(name.to_owned()),
        }
    }
}

// === impl Value ===

impl Value {
    fn new(said: &ValueMatch) -> Result<Self, String> {
        Ok(match said {
            ValueMatch::Present => Self::Present,
            ValueMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            ValueMatch::Regex(pattern) => Self::Regex(whole(pattern)?),
        })
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => **exact == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    fn in_headers(&self, name: &HeaderName, headers: &HeaderMap) -> bool {
        headers.get_all(name).iter().any(|value| self.holds(value.as_bytes()))
    }

    /// Names and values stand as they are in the query: nothing is decoded.
    fn in_query(&self, name: &str, query: &str) -> bool {
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .any(|(other, value)| other == name && self.holds(value.as_bytes()))
    }
}

fn path(said: &PathMatch) -> Result<PathPredicate, Fault> {
    let PathMatch::Regex(pattern) = said else {
        return Ok(PathPredicate::Plain(said.clone()));
    };
    whole(pattern).map(PathPredicate::Regex).map_err(|message| Fault {
        field: "path".to_owned(),
        reason: "InvalidRegex",
        message,
    })
}

fn method(text: &str) -> Result<Method, Fault> {
    Method::from_bytes(text.as_bytes()).map_err(|_| Fault {
        field: "method".to_owned(),
        reason: "InvalidMethod",
        message: format!("{text:?} is not a method; write it as in GET"),
    })
}

fn header(said: &NameValueMatch) -> Result<(HeaderName, Value), Fault> {
    let field = || format!("headers[{}]", said.name);
    let name = HeaderName::from_bytes(said.name.as_bytes()).map_err(|_| Fault {
        field: field(),
        reason: "InvalidHeaderName",
        message: format!("{:?} is not the name of a header field", said.name),
    })?;
    let value = Value::new(&said.value).map_err(|message| Fault {
        field: field(),
        reason: "InvalidRegex",
        message,
    })?;
    Ok((name, value))
}

fn parameter(said: &NameValueMatch) -> Result<(Box<str>, Value), Fault> {
    let value = Value::new(&said.value).map_err(|message| Fault {
        field: format!("query[{}]", said.name),
        reason: "InvalidRegex",
        message,
    })?;
    Ok((said.name.as_str().into(), value))
}

/// The pattern, bound to the whole text. It must be sound by itself, so that `a)|(b` cannot get out of the group.
fn whole(pattern: &str) -> Result<Regex, String> {
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(MOST_REGEX_BYTES).build();
    build(pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z"))).map_err(|error| {
        let error = error.to_string();
        let gist = error.lines().last().unwrap_or_default();
        format!("the regular expression {pattern:?} cannot be used: {gist}")
    })
}
