//! TLS toward clients: which certificate they are shown, and when it is read again.
//!
//! Files that were replaced by bad ones change nothing: clients go on to be
//! shown what was good, and the log says what is wrong.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// The certificate that clients are shown.
#[derive(Debug)]
pub struct Identity {
    files: Tls,
    shown: ArcSwap<CertifiedKey>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn load(files: Tls) -> anyhow::Result<Arc<Self>> {
        let shown = ArcSwap::from_pointee(read(&files)?);
        Ok(Arc::new(Self { files, shown }))
    }

    /// Accepts connections with it, HTTP/2 before HTTP/1.1.
    ///
    /// # Errors
    /// Never: the protocol versions are ring's own.
    pub fn acceptor(self: &Arc<Self>) -> anyhow::Result<TlsAcceptor> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again whenever they change, for as long as the node lives.
    pub async fn follow(self: Arc<Self>) {
        let mut seen = changed_at(&self.files);
        loop {
            tokio::time::sleep(LOOK).await;
            let now = changed_at(&self.files);
            if now != seen {
                seen = now;
                self.read_again();
            }
        }
    }

    fn read_again(&self) {
        match read(&self.files) {
            Ok(shown) => {
                tracing::info!(file = %self.files.certificate.display(), "another certificate is shown from now on");
                self.shown.store(Arc::new(shown));
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the certificate was not changed");
            }
        }
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

fn read(files: &Tls) -> anyhow::Result<CertifiedKey> {
    let (file, key_file) = (files.certificate.display(), files.key.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("node.tls.certificate: {file} cannot be read as PEM"))?;
    anyhow::ensure!(
        !chain.is_empty(),
        "node.tls.certificate: {file} holds no certificate"
    );
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("node.tls.key: {key_file} holds no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .with_context(|| format!("node.tls.key: {key_file} is not the key of {file}"))
}

/// When either file was changed last, as far as that can be seen.
fn changed_at(files: &Tls) -> [Option<SystemTime>; 2] {
    let of = |file: &Path| -> io::Result<SystemTime> { file.metadata()?.modified() };
    [&files.certificate, &files.key].map(|file| of(file).ok())
}
