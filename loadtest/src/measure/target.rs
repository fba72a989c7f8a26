//! Where a URL leads.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};
use http::Uri;

/// What a URL names, looked up.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) address: SocketAddr,
    /// The name in the URL, for the certificate.
    pub(super) host: String,
    /// What is sent as `Host`.
    pub(super) authority: String,
    pub(super) tls: bool,
    pub(super) path: Uri,
    pub(super) shown: String,
}

impl Target {
    /// Of an `http://` or `https://` URL; its host name is looked up now, once.
    ///
    /// # Errors
    /// If it is no such URL, or its host has no address.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => bail!("{url:?}: only http:// and https:// URLs can be asked"),
        };
        let authority = uri.authority().with_context(|| format!("{url:?} names no host"))?;
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = (host.as_str(), port)
            .to_socket_addrs()
            .with_context(|| format!("looking up {host:?}"))?
            .next()
            .with_context(|| format!("{host:?} has no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        Ok(Self { address, host, authority: authority.to_string(), tls, path, shown: url.to_owned() })
    }

    /// The same with another `Host` field, which in TLS is also the name of the server.
    #[must_use]
    pub fn named(self, authority: &str) -> Self {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        Self { host: host.to_owned(), authority: authority.to_owned(), ..self }
    }

    /// The same with another name of the server in TLS: the one it is asked for, and the one in its certificate.
    #[must_use]
    pub fn server_name(self, name: &str) -> Self {
        Self { host: name.to_owned(), ..self }
    }

    /// Its path with its query.
    pub fn path(&self) -> &Uri {
        &self.path
    }

    /// Whether it is asked over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}
