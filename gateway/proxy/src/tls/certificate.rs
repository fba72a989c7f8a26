//! A certificate with its key, and the one that is in use.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate chain and the private key of its first certificate, checked to belong together.
///
/// The key is never shown: not by `Debug`, nor in an error.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

/// What is wrong with a certificate or its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is no certificate in the text that should have one.
    #[error("it has no certificate: PEM with at least one block BEGIN CERTIFICATE is expected")]
    NoCertificate,
    /// The certificate's text or content cannot be read.
    #[error(
        "its certificate cannot be read ({0}): a chain in PEM is expected, the server's own certificate first"
    )]
    BadCertificate(String),
    /// There is no key in the text that should have one.
    #[error(
        "it has no private key: PEM with one block BEGIN PRIVATE KEY (or RSA or EC PRIVATE KEY) is expected, without a \
         passphrase"
    )]
    NoKey,
    /// The key's text or content cannot be read, or it is of a kind that is not served.
    #[error(
        "its private key cannot be used: an ECDSA key (P-256, P-384), an Ed25519 key or an RSA key of 2048 to 8192 bits is expected"
    )]
    BadKey,
    /// Each is sound, but the key is not the certificate's.
    #[error(
        "the private key is not that of the first certificate: give the two files that were issued together"
    )]
    Mismatch,
}

/// The certificate that is shown to clients. Clones are the same one.
#[derive(Clone)]
pub struct ServedCertificate(Arc<ArcSwap<CertifiedKey>>);

// === impl Certificate ===

impl Certificate {
    /// Reads a chain and its key, each from PEM text.
    ///
    /// # Errors
    /// Says what is wrong with which of the two; [`CertificateError::is_of_the_key`] tells them apart.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::BadCertificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => CertificateError::NoKey,
            // What the parser says of it may quote the text.
            _ => CertificateError::BadKey,
        })?;
        let provider = ring::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| CertificateError::BadKey)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(Self(Arc::new(certified))),
            Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch),
            Err(error) => Err(CertificateError::BadCertificate(error.to_string())),
        }
    }
}

impl PartialEq for Certificate {
    /// Compares the chains: a certificate has one key only.
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate(a chain of {})", self.0.cert.len())
    }
}

// === impl CertificateError ===

impl CertificateError {
    /// Whether it is the key's file that should be looked at.
    pub fn is_of_the_key(&self) -> bool {
        match self {
            Self::NoCertificate | Self::BadCertificate(_) => false,
            Self::NoKey | Self::BadKey | Self::Mismatch => true,
        }
    }
}

// === impl ServedCertificate ===

impl ServedCertificate {
    /// Shows this one until another is given.
    pub fn new(certificate: Certificate) -> Self {
        Self(Arc::new(ArcSwap::new(certificate.0)))
    }

    /// Shows another from the next handshake on. Connections that are open stay as they are.
    pub fn replace(&self, certificate: Certificate) {
        self.0.store(certificate.0);
    }

    /// The one that is shown now.
    pub fn current(&self) -> Certificate {
        Certificate(self.0.load_full())
    }
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for ServedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServedCertificate").field(&self.current()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued() -> (String, String) {
        let issued = rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).unwrap();
        (issued.cert.pem(), issued.signing_key.serialize_pem())
    }

    fn fault(chain: &str, key: &str) -> CertificateError {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_chain_and_its_key_are_taken() {
        let (chain, key) = issued();
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let (other, other_key) = issued();
        let other = Certificate::from_pem(other.as_bytes(), other_key.as_bytes()).unwrap();
        assert_ne!(certificate, other);
        let served = ServedCertificate::new(certificate.clone());
        assert_eq!(served.current(), certificate);
        let same_one = served.clone();
        same_one.replace(other.clone());
        assert_eq!(served.current(), other);
    }

    #[test]
    fn what_is_wrong_is_told_and_of_which() {
        let (chain, key) = issued();
        let (_, other_key) = issued();
        let broken = chain.replace("MII", "!!!");
        let hollow = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let encrypted = key
            .replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")
            .replace("END PRIVATE", "END ENCRYPTED PRIVATE");
        assert_eq!(fault("", &key), CertificateError::NoCertificate);
        assert_eq!(fault(&key, &chain), CertificateError::NoCertificate, "the files are mixed up");
        assert!(matches!(fault(&broken, &key), CertificateError::BadCertificate(_)));
        assert!(matches!(fault(hollow, &key), CertificateError::BadCertificate(_)));
        assert_eq!(fault(&chain, ""), CertificateError::NoKey);
        assert_eq!(fault(&chain, &chain), CertificateError::NoKey);
        assert_eq!(fault(&chain, &encrypted), CertificateError::NoKey);
        assert_eq!(fault(&chain, &key.replace("M", "A")), CertificateError::BadKey);
        assert_eq!(fault(&chain, &other_key), CertificateError::Mismatch);
        assert!(!fault("", &key).is_of_the_key() && fault(&chain, "").is_of_the_key());
    }

    #[test]
    fn a_key_is_not_shown() {
        let (chain, key) = issued();
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let shown = format!("{certificate:?} {:?}", ServedCertificate::new(certificate.clone()));
        assert_eq!(shown, "Certificate(a chain of 1) ServedCertificate(Certificate(a chain of 1))");
        let told = fault(&chain, &key.replace("-----END PRIVATE KEY-----", "")).to_string();
        let secret = key.lines().nth(1).unwrap();
        assert!(!told.contains(&secret[..16]), "{told}");
    }
}
