//! Finding the API server and the credentials for it.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

use super::request::causes;
use super::token_file::TokenFile;

/// Where to look for the API server.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// A kubeconfig file; without one the pod's own ServiceAccount is used, and outside of a pod the kubeconfig that
    /// kubectl would use.
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig; without one, its current one.
    pub context: Option<String>,
}

/// A client, and what it found.
#[derive(Clone)]
pub struct Connected {
    /// The client. Its work runs on the runtime on which [`connect`] was awaited.
    pub client: Client,
    /// The pod's own namespace, or the one of the kubeconfig's context.
    pub namespace: String,
    /// Where the credentials came from, for the log.
    pub origin: String,
    /// The address of the API server.
    pub server: String,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("namespace", &self.namespace).field("origin", &self.origin).finish()
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig that was named cannot be used.
    #[error("the kubeconfig {path} cannot be used: {why}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing that was tried exists.
    #[error(
        "no Kubernetes cluster found. Tried the pod's ServiceAccount ({in_cluster}) and the kubeconfig from \
         KUBECONFIG or ~/.kube/config ({kubeconfig}). Run in a pod with a mounted ServiceAccount token, name a \
         kubeconfig, or run on a folder of manifests with --files DIR"
    )]
    NothingFound {
        /// Why the pod's own credentials were not used.
        in_cluster: String,
        /// Why the kubeconfig was not used.
        kubeconfig: String,
    },
    /// What was found makes no client: certificates or keys that cannot be read.
    #[error("the credentials from {origin} cannot be used: {why}")]
    Credentials {
        /// Where they came from.
        origin: String,
        /// What is wrong with them.
        why: String,
    },
}

/// Makes a client. Nothing is sent yet: an API server that is away is not an error here but a reason to wait, in the
/// watches.
///
/// # Errors
/// When no credentials are found or what is found cannot be read; the text says what was tried.
pub async fn connect(options: &ConnectOptions) -> Result<Connected, ConnectError> {
    let (mut config, origin) = find(options).await?;
    // Waiting and trying again is the watches' own work; they honour what the server says about it.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    let agent = HeaderValue::from_static(concat!("portolan/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let (namespace, server) = (config.default_namespace.clone(), config.cluster_url.to_string());
    let client = client(config).map_err(|why| ConnectError::Credentials { origin: origin.clone(), why })?;
    Ok(Connected { client, namespace, origin, server })
}

/// The client's own reading of a token file is a minute behind the file.
fn client(mut config: Config) -> Result<Client, String> {
    let token = match config.auth_info.token {
        Some(_) => None,
        None => config.auth_info.token_file.take().map(TokenFile::read).transpose()?,
    };
    let builder = ClientBuilder::try_from(config).map_err(|error| causes(&error))?;
    Ok(match token {
        None => builder.build(),
        Some(token) => builder.with_layer(&MapRequestLayer::new(move |request| token.sign(request))).build(),
    })
}

async fn find(options: &ConnectOptions) -> Result<(Config, String), ConnectError> {
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &options.kubeconfig {
        let wrap = |why: String| ConnectError::Kubeconfig { path: path.clone(), why };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| wrap(causes(&error)))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &choice)
            .await
            .map_err(|error| wrap(causes(&error)))?;
        return Ok((config, format!("kubeconfig {}", path.display())));
    }
    let in_cluster = match Config::incluster() {
        Ok(config) => return Ok((config, "the pod's ServiceAccount".into())),
        Err(error) => causes(&error),
    };
    match Config::from_kubeconfig(&choice).await {
        Ok(config) => Ok((config, "the default kubeconfig".into())),
        Err(error) => Err(ConnectError::NothingFound { in_cluster, kubeconfig: causes(&error) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let options = ConnectOptions { kubeconfig: Some("/nowhere/kubeconfig".into()), context: None };
        let error = connect(&options).await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/kubeconfig"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_context_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, "apiVersion: v1\nkind: Config\ncontexts: []\nclusters: []\nusers: []\n")
            .unwrap();
        let options = ConnectOptions { kubeconfig: Some(path), context: Some("elsewhere".into()) };
        let error = connect(&options).await.unwrap_err().to_string();
        assert!(error.contains("elsewhere"), "{error}");
    }
}
