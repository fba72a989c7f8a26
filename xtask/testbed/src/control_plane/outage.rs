//! Parts of a control plane killed and started again, on purpose.

use anyhow::Result;

use super::ControlPlane;
use crate::certificates;
use crate::node::Node;

impl ControlPlane {
    /// Kills the API server and returns when it is gone. etcd keeps what it stored.
    pub fn kill_api_server(&self) {
        self.description.api_server.stop();
    }

    /// Starts the killed API server again, on the same port, and returns when it is ready. With a node the controllers, the
    /// scheduler and kube-proxy are started anew, too: left alone they would follow it again only after up to a minute. So
    /// will the kubelet ([`ControlPlane::restart_kubelet`]) and cluster DNS.
    ///
    /// # Errors
    /// When it does not answer within three minutes, or another program cannot be started.
    pub fn restart_api_server(&self) -> Result<()> {
        self.description.api_server.start()?;
        self.wait_until_ready()?;
        match &self.description.node {
            Some(node) => self.restart_followers(node),
            None => Ok(()),
        }
    }

    /// Where there are several controllers and schedulers they hold a lease, and end by themselves soon after the API server
    /// went away; these have none. kube-proxy's rules stay meanwhile.
    fn restart_followers(&self, node: &Node) -> Result<()> {
        let followers = self.description.controllers.iter().chain([node.scheduler(), node.kube_proxy()]);
        followers.into_iter().try_for_each(|daemon| {
            daemon.stop();
            daemon.start()
        })
    }

    /// Gives the API server another key to sign ServiceAccount tokens with and to know them by: every token made before
    /// is refused from now on. Returns when it is ready again. The kubelet believes in the tokens that it has handed out;
    /// killed and started again ([`ControlPlane::restart_kubelet`]), it asks for new ones.
    ///
    /// # Errors
    /// When the key cannot be written or the API server is not ready within three minutes.
    pub fn rotate_service_account_key(&self) -> Result<()> {
        self.kill_api_server();
        certificates::write_token_key(&self.description.folder.join("pki"))?;
        self.restart_api_server()
    }

    /// Kills etcd and starts it from its data; returns when the API server is ready again.
    ///
    /// # Errors
    /// When the API server is not ready within three minutes.
    pub fn restart_etcd(&self) -> Result<()> {
        self.description.etcd.stop();
        self.description.etcd.start()?;
        self.wait_until_ready()
    }
}
