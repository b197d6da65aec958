//! TLS by rustls: a certificate that is read again when its files change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
        server::WebPkiClientVerifier,
    },
};

/// The largest file that is read.
const MAX_FILE: u64 = 1 << 20;
/// What clients may choose among.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where a server's certificate is. All files are PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, then those that lead to one that clients trust.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who must have signed the certificates of clients; none: clients need none.
    pub client_ca: Option<PathBuf>,
    /// How often is looked whether the files have changed.
    pub check_every: Duration,
}

/// Why TLS can't be set up. No error holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {}: {source}; it must be a file that the user of this process may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no {wanted} in PEM: {reason}; it needs a block `-----BEGIN {block}-----`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// How such a block begins.
        block: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key can't be used together.
    #[error("cannot use {} with the key {}: {source}; the key must be that of the first certificate", certificate.display(), key.display())]
    Pair {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// The certificates of clients can't be checked.
    #[error("cannot check clients by {}: {reason}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The certificate that new connections get.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<TlsAcceptor>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(files.read()?);
        Ok(Self { files, current })
    }

    /// What greets a new connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files when they change, for ever; looks from time to time, and when `looks` changes. What can't be used is
    /// told and changes nothing.
    pub(crate) async fn follow(self: Arc<Self>, mut looks: watch::Receiver<()>) {
        let mut known = self.files.stamps();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.files.check_every) => {}
                Ok(()) = looks.changed() => {}
            }
            let tls = Arc::clone(&self);
            let before = known.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let stamps = tls.files.stamps();
                if stamps != before {
                    tls.reload();
                }
                stamps
            });
            known = looked.await.unwrap_or(known);
        }
    }

    fn reload(&self) {
        match self.files.read() {
            Ok(acceptor) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!(certificate = %self.files.certificate.display(), "new connections get the new certificate");
            }
            Err(error) => tracing::error!(%error, "the certificate stays the one that was read before"),
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<TlsAcceptor, TlsError> {
        let Self { certificate, key, client_ca, .. } = self;
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| TlsError::Content {
            path: key.clone(),
            wanted: "private key",
            block: "PRIVATE KEY",
            // The library's words may quote the file.
            reason: if matches!(error, pem::Error::NoItemsFound) { "there is none" } else { "it can't be read" }.into(),
        })?;
        let pair = |source| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), source };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(pair)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let failed = |reason: String| TlsError::ClientCa { path: path.clone(), reason };
                let mut roots = RootCertStore::empty();
                for root in certificates(path)? {
                    roots.add(root).map_err(|error| failed(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| failed(error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, private).map_err(pair)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// What changes when a file is written or another takes its place, also behind a link.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64, u64)>> {
        let stamp = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), inode(&metadata)))
        };
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(stamp).collect()
    }
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content =
        |reason| TlsError::Content { path: path.to_owned(), wanted: "certificate", block: "CERTIFICATE", reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| content("it can't be read".into()))?;
    if found.is_empty() { Err(content("there is none".into())) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE + 1), &mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {MAX_FILE} bytes"))));
    }
    Ok(bytes)
}
