//! Whose certificates are trusted when this node connects somewhere.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Why certificates cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}")]
pub struct CertificatesError {
    file: String,
    why: String,
}

/// Adds the certificates of a PEM file to `roots`.
///
/// # Errors
/// When it cannot be read or holds something else.
pub fn trust(roots: &mut RootCertStore, file: &Path) -> Result<(), CertificatesError> {
    let refuse = |why: &dyn std::fmt::Display| CertificatesError {
        file: file.display().to_string(),
        why: why.to_string(),
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| refuse(&error))?;
    let before = roots.len();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| refuse(&error))?;
        roots.add(certificate).map_err(|error| refuse(&error))?;
    }
    if roots.len() == before {
        return Err(refuse(&"holds no certificate in PEM"));
    }
    Ok(())
}

/// TLS toward whom the public authorities vouch for, and those of `file`.
///
/// # Errors
/// As for [`trust`].
pub fn client(file: Option<&Path>) -> Result<ClientConfig, CertificatesError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(file) = file {
        trust(&mut roots, file)?;
    }
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|config| config.with_root_certificates(roots).with_no_client_auth())
        // ring speaks both versions; it is an error of rustls' types only.
        .map_err(|error| CertificatesError {
            file: "TLS".to_owned(),
            why: error.to_string(),
        })
}
