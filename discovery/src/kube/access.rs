//! Rights that are missing, told: once in the log, and as findings for as long as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_model::{Finding, ResourceRef};
use tokio::sync::watch;
use tracing::warn;

use super::request::Failure;

/// Under which the Kubernetes side says its own findings.
pub(super) fn source_resource() -> ResourceRef {
    ResourceRef::new("Source", "", "kubernetes")
}

/// What it means that the credentials are not believed: no Role helps then.
pub(super) fn unauthenticated(failure: &Failure, meaning: &str) -> String {
    format!(
        "The API server does not accept Portolan's credentials ({failure}). {meaning}. A new token in the file of its \
         ServiceAccount (or of the kubeconfig) is taken up by itself; if none comes, look at the kubelet of this node, \
         or recreate the pod"
    )
}

/// What is asked for, and what it means to be denied it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// As RBAC spells it: `leases.coordination.k8s.io`.
    pub(super) resource: &'static str,
    pub(super) verbs: &'static str,
    /// A sentence without its full stop.
    pub(super) meaning: &'static str,
    /// The folder whose Role has it.
    pub(super) granted_by: &'static str,
}

/// The rights to one resource that is not required, namespace by namespace.
#[derive(Debug)]
pub(super) struct Access {
    wanted: Wanted,
    denied: BTreeMap<String, Finding>,
    has_warned: bool,
    findings: watch::Sender<Arc<Vec<Finding>>>,
}

impl Access {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, denied: BTreeMap::new(), has_warned: false, findings: watch::Sender::default() }
    }

    /// The findings, one for each namespace in which the right is missing.
    pub(super) fn findings(&self) -> watch::Receiver<Arc<Vec<Finding>>> {
        self.findings.subscribe()
    }

    /// What an attempt in this namespace came to. Only a denial and a success say anything about a right.
    pub(super) fn tried<T>(&mut self, namespace: &str, result: Result<T, &Failure>) {
        match result {
            Ok(_) => self.retain(|denied| denied != namespace),
            Err(failure) if failure.is_denied() => self.denied(namespace, failure),
            Err(_) => {}
        }
    }

    /// Forgets what is not asked for any more.
    pub(super) fn retain(&mut self, mut is_wanted: impl FnMut(&str) -> bool) {
        let before = self.denied.len();
        self.denied.retain(|namespace, _| is_wanted(namespace));
        if self.denied.len() < before {
            self.publish();
        }
    }

    fn denied(&mut self, namespace: &str, failure: &Failure) {
        let finding = self.finding(namespace, failure);
        // The text of each attempt may differ; the finding need not.
        if self.denied.get(namespace).is_some_and(|before| before.reason == finding.reason) {
            return;
        }
        // Once for all namespaces: the findings name each.
        if !std::mem::replace(&mut self.has_warned, true) {
            warn!(%finding, "a right is missing");
        }
        self.denied.insert(namespace.to_owned(), finding);
        self.publish();
    }

    fn finding(&self, namespace: &str, failure: &Failure) -> Finding {
        let Wanted { resource, verbs, meaning, granted_by } = self.wanted;
        let field = format!("{resource} in namespace {namespace}");
        if failure.is_unauthenticated() {
            let message = unauthenticated(failure, meaning);
            return Finding::warning(&source_resource(), field, "Unauthenticated", message);
        }
        let message = format!(
            "Portolan may not {verbs} {resource} in namespace {namespace} ({failure}). {meaning}. \
             Grant {verbs} on {resource} to its ServiceAccount, as {granted_by} does"
        );
        Finding::warning(&source_resource(), field, "AccessDenied", message)
    }

    fn publish(&self) {
        self.findings.send_replace(Arc::new(self.denied.values().cloned().collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let (resource, verbs) = ("events.events.k8s.io", "create and patch");
        Access::new(Wanted { resource, verbs, meaning: "It matters", granted_by: "deploy/base" })
    }

    fn answered(code: u16, message: &str) -> Failure {
        Failure::Answered { code, message: message.into(), retry_after: None }
    }

    #[test]
    fn a_denial_stands_until_a_success_in_the_same_namespace() {
        let mut access = access();
        let mut findings = access.findings();
        let said = |findings: &mut watch::Receiver<Arc<Vec<Finding>>>| findings.borrow_and_update().to_vec();
        access.tried::<()>("shop", Err(&answered(403, "first")));
        let first = said(&mut findings);
        assert_eq!(first[0].field, "events.events.k8s.io in namespace shop");
        assert!(first[0].message.contains("first"), "{}", first[0]);
        access.tried::<()>("shop", Err(&answered(403, "second")));
        access.tried::<()>("shop", Err(&answered(500, "no")));
        access.tried("stock", Ok(()));
        assert!(!findings.has_changed().unwrap(), "nothing new");
        access.tried::<()>("stock", Err(&answered(401, "who?")));
        assert_eq!(said(&mut findings).len(), 2);
        access.tried("shop", Ok(()));
        assert_eq!(said(&mut findings)[0].field, "events.events.k8s.io in namespace stock");
    }
}
