//! Which programs a control plane consists of, with which arguments, and where its files are.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::Options;
use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::node::Node;
use crate::programs::{NodePrograms, Programs};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) programs: Programs,
    pub(super) folder: PathBuf,
    pub(super) keep_folder: bool,
    pub(super) netns: Option<String>,
    pub(super) api: SocketAddr,
    pub(super) etcd: Daemon,
    pub(super) api_server: Daemon,
    pub(super) controllers: Option<Daemon>,
    pub(super) node: Option<Node>,
}

pub(super) struct Ports {
    api: u16,
    etcd: u16,
}

impl Ports {
    pub(super) fn choose(namespace_of_its_own: bool) -> Result<Ports> {
        if namespace_of_its_own {
            return Ok(Ports { api: 6443, etcd: 2379 });
        }
        // Held together, so that they differ; somebody may take one before its program binds it, which then says so.
        let (api, etcd) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Ports { api: api.local_addr()?.port(), etcd: etcd.local_addr()?.port() })
    }
}

pub(super) fn describe(
    programs: Programs,
    node_programs: Option<NodePrograms>,
    folder: PathBuf,
    ports: Ports,
    options: &Options,
    keep_folder: bool,
) -> Result<Description> {
    let daemon = |name: &str, program: &Path, arguments: Vec<String>| Daemon {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments,
        folder: folder.clone(),
        netns: options.netns.clone(),
        mounts: None,
        ends_with_starter: options.ends_with_starter,
    };
    let address = match options.netns {
        Some(_) => Ipv4Addr::from(Netns::ADDRESS),
        None => Ipv4Addr::LOCALHOST,
    };
    let api = SocketAddr::from((address, ports.api));
    let etcd_url = format!("http://127.0.0.1:{}", ports.etcd);
    let etcd = daemon("etcd", &programs.etcd, etcd_arguments(&folder, &etcd_url));
    let node = match (node_programs, &options.netns) {
        (None, _) => None,
        (Some(programs), Some(netns)) => Some(Node::describe(netns, programs, &folder, daemon)),
        (Some(_), None) => bail!("a node needs a network namespace of its own"),
    };
    let mut arguments = api_server_arguments(&folder, api, &etcd_url);
    arguments.extend(service_arguments(&folder, node.is_some()));
    let api_server = daemon("kube-apiserver", &programs.kube_apiserver, arguments);
    let controllers = (options.controllers || options.node).then(|| {
        let program = &programs.kube_controller_manager;
        daemon("kube-controller-manager", program, controller_arguments(&folder, node.is_some()))
    });
    let netns = options.netns.clone();
    Ok(Description {
        programs,
        keep_folder,
        netns,
        api,
        etcd,
        api_server,
        controllers,
        node,
        folder: folder.clone(),
    })
}

fn etcd_arguments(folder: &Path, url: &str) -> Vec<String> {
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
        // The data lives no longer than the process.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server_arguments(folder: &Path, api: SocketAddr, etcd: &str) -> Vec<String> {
    let pki = |file: &str| folder.join("pki").join(file).display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={}", api.port()),
        format!("--advertise-address={}", api.ip()),
        format!("--tls-cert-file={}", pki("api.crt")),
        format!("--tls-private-key-file={}", pki("api.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    if api.ip().is_loopback() {
        // A loopback address may not stand in the endpoints of the Service `kubernetes`.
        arguments.push("--bind-address=127.0.0.1".to_owned());
        arguments.push("--endpoint-reconciler-type=none".to_owned());
    } else {
        arguments.push("--bind-address=0.0.0.0".to_owned());
    }
    arguments
}

/// Without a node nothing carries traffic to Services, so both families are free; with one there are pods to talk to.
fn service_arguments(folder: &Path, node: bool) -> Vec<String> {
    if !node {
        return vec!["--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_owned()];
    }
    let pki = |file: &str| folder.join("pki").join(file).display().to_string();
    vec![
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // For `kubectl logs`, `exec` and `port-forward`.
        format!("--kubelet-client-certificate={}", pki("admin.crt")),
        format!("--kubelet-client-key={}", pki("admin.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

fn controller_arguments(folder: &Path, node: bool) -> Vec<String> {
    let kubeconfig = folder.join("kubeconfig").display().to_string();
    let mut arguments = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--service-account-private-key-file={}", folder.join("pki/sa.key").display()),
        format!("--root-ca-file={}", folder.join("pki/ca.crt").display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ];
    if node {
        // In a cluster for work these controllers lose their lease with the API server, and the next leader gives every
        // node its time anew. Ours stay, and would call the node lost as soon as the API server is back: before the
        // kubelet's first word, all pods unready.
        arguments.push("--node-monitor-grace-period=15m".to_owned());
    }
    arguments
}

impl Description {
    pub(super) fn daemons(&self) -> impl DoubleEndedIterator<Item = &Daemon> {
        let control_plane = [Some(&self.etcd), Some(&self.api_server), self.controllers.as_ref()];
        let node = self.node.iter().flat_map(Node::daemons);
        control_plane.into_iter().flatten().chain(node)
    }

    pub(super) fn pki(&self, file: &str) -> PathBuf {
        self.folder.join("pki").join(file)
    }

    /// JSON is YAML.
    pub(super) fn kubeconfig(&self, namespace: &str, user: &serde_json::Value) -> String {
        let cluster = serde_json::json!({
            "server": format!("https://{}", self.api),
            "certificate-authority": self.pki("ca.crt"),
        });
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "portolan", "cluster": cluster }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{
                "name": "portolan",
                "context": { "cluster": "portolan", "user": "user", "namespace": namespace },
            }],
            "current-context": "portolan",
        });
        format!("{config:#}")
    }
}
