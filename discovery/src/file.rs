//! A folder of Kubernetes manifests as a source.
