//! What could not be honoured, told to whoever can mend it.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::ResourceRef;

/// One thing in one object that Portolan could not do as asked. Shown at `/findings`, counted in a metric, and in a
/// Kubernetes cluster written as an Event on the object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Finding {
    /// The object at fault.
    pub resource: ResourceRef,
    /// The field at fault, as a path into the object: `metadata.annotations["portolan.dev/port"]`.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// A closed word in CamelCase, the metric's label and the Event's reason: `UnknownPort`.
    pub reason: Cow<'static, str>,
    /// For the person on call: what is wrong, what it means, what to do.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something asked for does not happen.
    Error,
    /// Something happens otherwise than the author may expect.
    Warning,
}

impl Finding {
    /// Something asked for that does not happen.
    pub fn error(
        resource: &ResourceRef,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            resource: resource.clone(),
            field: field.into(),
            severity: Severity::Error,
            reason: Cow::Borrowed(reason),
            message: message.into(),
        }
    }

    /// Something that happens otherwise than the author may expect.
    pub fn warning(
        resource: &ResourceRef,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(resource, field, reason, message) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity} {}: {}: {} ({})", self.resource, self.field, self.message, self.reason)
    }
}
