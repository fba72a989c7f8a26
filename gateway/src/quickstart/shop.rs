//! The quickstart's sample application: three Services whose endpoints come and go, and the manifests that say so.

use std::io;
use std::path::{Path, PathBuf};

use super::upstream::Upstream;

/// The sample application: its running servers and the folder with their manifests.
#[derive(Debug)]
pub(super) struct Shop {
    folder: PathBuf,
    services: Vec<Service>,
}

#[derive(Debug)]
struct Service {
    name: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    running: Vec<Upstream>,
    /// Endpoints that the manifests still name although their server is dead.
    broken: Vec<(String, std::net::SocketAddr)>,
    started: u32,
}

impl Shop {
    /// Starts the servers and writes the manifests into `folder`.
    pub(super) async fn open(folder: &Path) -> io::Result<Self> {
        let service =
            |name, annotations| Service { name, annotations, running: vec![], broken: vec![], started: 0 };
        let mut shop = Self {
            folder: folder.to_owned(),
            services: vec![
                service("orders", &[]),
                service("customers", &[("portolan.dev/balance", "least-connection")]),
                service("catalog", &[("portolan.dev/host", "catalog.shop.localhost")]),
            ],
        };
        for (index, count) in [(0, 3), (1, 2), (2, 2)] {
            for _ in 0..count {
                shop.services[index].start_one().await?;
            }
            shop.write(index)?;
        }
        Ok(shop)
    }

    /// Adds an endpoint to `orders`.
    pub(super) async fn scale_up(&mut self) -> io::Result<String> {
        self.services[0].start_one().await?;
        self.write(0)?;
        let added = &self.services[0].running[self.services[0].running.len() - 1];
        Ok(format!("scale up: {} joins at {}", added.name, added.address))
    }

    /// Takes the oldest endpoint out of `orders`: its manifest first, then its server, as a rollout does.
    pub(super) async fn scale_down(&mut self) -> io::Result<String> {
        if self.services[0].running.len() < 2 {
            return Ok("scale down: orders keeps its last endpoint".to_owned());
        }
        let leaving = self.services[0].running.remove(0);
        self.write(0)?;
        // The server stays until the gateway has surely read the manifest, as a well-behaved pod does.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        Ok(format!("scale down: {} leaves {}", leaving.name, leaving.address))
    }

    /// Kills a server of `orders` without a word: its manifest still names it.
    pub(super) fn break_one(&mut self) -> String {
        let orders = &mut self.services[0];
        if orders.running.len() < 2 {
            return "break: orders keeps its last endpoint".to_owned();
        }
        let victim = orders.running.remove(0);
        let said =
            format!("break: {} at {} is dead, and its manifest does not say so", victim.name, victim.address);
        orders.broken.push((victim.name.clone(), victim.address));
        said
    }

    /// Takes dead endpoints out of the manifest and starts as many new ones.
    pub(super) async fn repair(&mut self) -> io::Result<String> {
        let broken = std::mem::take(&mut self.services[0].broken);
        if broken.is_empty() {
            return Ok("repair: nothing is broken".to_owned());
        }
        for _ in &broken {
            self.services[0].start_one().await?;
        }
        self.write(0)?;
        let names: Vec<_> = broken.iter().map(|(name, _)| name.as_str()).collect();
        Ok(format!("repair: {} replaced", names.join(", ")))
    }

    /// Writes the manifest beside its place and renames it, so that nobody reads half of it.
    fn write(&self, index: usize) -> io::Result<()> {
        let service = &self.services[index];
        let hidden = self.folder.join(format!(".{}.tmp", service.name));
        std::fs::write(&hidden, service.manifest())?;
        std::fs::rename(hidden, self.folder.join(format!("{}.yaml", service.name)))
    }
}

impl Service {
    async fn start_one(&mut self) -> io::Result<()> {
        self.started += 1;
        let upstream = Upstream::start(format!("{}-{}", self.name, self.started)).await?;
        self.running.push(upstream);
        Ok(())
    }

    /// A Service, and a slice for each endpoint: on one machine each server has a port of its own.
    fn manifest(&self) -> String {
        let name = self.name;
        let annotations: String =
            self.annotations.iter().map(|(key, value)| format!("    {key}: \"{value}\"\n")).collect();
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: default\n  annotations:\n    \
             portolan.dev/expose: \"true\"\n{annotations}spec:\n  ports:\n  - {{name: http, port: 80}}\n"
        );
        let alive = self.running.iter().map(|upstream| (&upstream.name, upstream.address));
        let dead = self.broken.iter().map(|(name, address)| (name, *address));
        for (endpoint, address) in alive.chain(dead) {
            text += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {endpoint}\n  \
                 namespace: default\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
                 ports:\n- {{name: http, port: {}, protocol: TCP}}\nendpoints:\n- addresses: [{}]\n  \
                 conditions: {{ready: true}}\n  targetRef: {{kind: Pod, name: {endpoint}, uid: {endpoint}}}\n",
                address.port(),
                address.ip(),
            );
        }
        text
    }
}
