//! The cluster's DNS: CoreDNS as a Deployment behind the Service `kube-dns`.

/// The image, made from the CoreDNS of `xtask/coredns`.
pub(super) const IMAGE: &str = "cluster.local/coredns:1";

/// The address of the Service `kube-dns`.
pub(super) const ADDRESS: &str = "10.96.0.10";

/// A name outside the cluster does not exist; without that answer resolvers ask again and again.
pub(super) const OBJECTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [services, namespaces, pods], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:5353 {
      errors
      ready
      kubernetes cluster.local in-addr.arpa ip6.arpa {
        ttl 5
      }
      template ANY ANY . {
        rcode NXDOMAIN
      }
      cache 5
      loadbalance
    }
---
apiVersion: v1
kind: Service
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {k8s-app: kube-dns, kubernetes.io/name: CoreDNS}
spec:
  clusterIP: 10.96.0.10
  selector: {k8s-app: kube-dns}
  ports:
  - {name: dns, protocol: UDP, port: 53, targetPort: dns}
  - {name: dns-tcp, protocol: TCP, port: 53, targetPort: dns-tcp}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: coredns
  namespace: kube-system
  labels: {k8s-app: kube-dns}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      # The node's own resolver configuration, which is empty: no query goes round in a circle.
      dnsPolicy: Default
      containers:
      - name: coredns
        image: cluster.local/coredns:1
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        ports:
        - {name: dns, protocol: UDP, containerPort: 5353}
        - {name: dns-tcp, protocol: TCP, containerPort: 5353}
        readinessProbe:
          httpGet: {path: /ready, port: 8181}
          periodSeconds: 1
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        volumeMounts: [{name: configuration, mountPath: /etc/coredns, readOnly: true}]
      volumes:
      - name: configuration
        configMap: {name: coredns}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_agree_with_the_constants() {
        assert!(OBJECTS.contains(&format!("image: {IMAGE}\n")));
        assert!(OBJECTS.contains(&format!("clusterIP: {ADDRESS}\n")));
    }
}
