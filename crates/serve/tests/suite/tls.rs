//! TLS: both versions of HTTP over it, certificates that change, clients that don't speak it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::http::{Request, StatusCode};
use centuple_serve::{Config, Server, TlsFiles};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, CertifiedIssuer, CertifiedKey, KeyPair};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, StreamOwned,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::harness::{Running, config, tiny};

fn new_certificate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Files in a folder, with a certificate in them.
fn files(folder: &Path, pair: &CertifiedKey<KeyPair>) -> TlsFiles {
    let files = TlsFiles {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        client_ca: None,
        check_every: Duration::from_millis(10),
    };
    fs::write(&files.certificate, pair.cert.pem()).unwrap();
    fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    files
}

fn serve(tls: TlsFiles) -> Running {
    Running::new(Config { tls: Some(tls), ..config() }, vec![tiny::embedder(true)])
}

/// A client that trusts one certificate.
fn trusting(
    certificate: &CertificateDer<'static>,
) -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// The status of `GET /health`, or why there is none.
fn health(address: SocketAddr, client: ClientConfig) -> std::io::Result<u16> {
    let connection = ClientConnection::new(Arc::new(client), localhost()).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| std::io::Error::other("no status"))
}

#[test]
fn both_versions_of_http_over_tls() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), new_certificate());
    let server = serve(files(folder.path(), &pair));
    let client = || trusting(pair.cert.der()).with_no_client_auth();
    assert_eq!(health(server.address, client()).unwrap(), 200);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = client();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(client)).connect(localhost(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let body = Full::new(Bytes::from_static(br#"{"inputs": "cat"}"#));
        let request = Request::post("https://localhost/").body(body).unwrap();
        let reply = sender.send_request(request).await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(serde_json::from_slice::<Vec<f32>>(&body).unwrap().len(), tiny::DIMENSION);
    });
    drop(runtime);
    server.end().unwrap();
}

#[test]
fn new_files_are_taken_and_bad_ones_are_not() {
    let (folder, old) = (tempfile::tempdir().unwrap(), new_certificate());
    let tls = files(folder.path(), &old);
    let server = serve(tls.clone());
    let ask = |pair: &CertifiedKey<KeyPair>| health(server.address, trusting(pair.cert.der()).with_no_client_auth());
    assert_eq!(ask(&old).unwrap(), 200);
    // A certificate without its key, a key that is none, and nothing at all.
    let other = new_certificate();
    for (file, content) in [(&tls.certificate, other.cert.pem()), (&tls.key, "-----BEGIN".into())] {
        fs::write(file, content).unwrap();
        std::thread::sleep(tls.check_every * 5);
        assert_eq!(ask(&old).unwrap(), 200);
    }
    fs::remove_file(&tls.key).unwrap();
    std::thread::sleep(tls.check_every * 5);
    assert_eq!(ask(&old).unwrap(), 200);
    let new = new_certificate();
    files(folder.path(), &new);
    while ask(&new).is_err() {
        std::thread::sleep(tls.check_every);
    }
    assert!(ask(&old).is_err());
}

#[test]
fn clients_must_have_a_certificate_where_one_is_asked_for() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), new_certificate());
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca = folder.path().join("ca.crt");
    fs::write(&ca, authority.pem()).unwrap();
    let server = serve(TlsFiles { client_ca: Some(ca), ..files(folder.path(), &pair) });
    assert!(health(server.address, trusting(pair.cert.der()).with_no_client_auth()).is_err());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["client".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let known = trusting(pair.cert.der()).with_client_auth_cert(vec![certificate.der().clone()], key).unwrap();
    assert_eq!(health(server.address, known).unwrap(), 200);
    let stranger = new_certificate();
    let key = PrivateKeyDer::from_pem_slice(stranger.signing_key.serialize_pem().as_bytes()).unwrap();
    let stranger = trusting(pair.cert.der()).with_client_auth_cert(vec![stranger.cert.der().clone()], key).unwrap();
    assert!(health(server.address, stranger).is_err());
}

#[test]
fn who_does_not_shake_hands_harms_nobody() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), new_certificate());
    let tls = Some(files(folder.path(), &pair));
    let config = Config { tls, header_timeout: Duration::from_millis(100), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let plain = server.get("/health");
    assert_eq!((plain.status, plain.json()["error"].is_string()), (400, true), "{plain:?}");
    // Nothing, the beginning of a greeting, and no TLS at all.
    let mut silent: Vec<TcpStream> = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x00\xff\x00\xff\x00\xff"] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(bytes).unwrap();
        silent.push(stream);
    }
    assert_eq!(health(server.address, trusting(pair.cert.der()).with_no_client_auth()).unwrap(), 200);
    for mut stream in silent {
        let mut rest = Vec::new();
        // The server ends it, whether in order or not.
        let _ = stream.read_to_end(&mut rest);
    }
    server.end().unwrap();
}

#[test]
fn errors_name_the_file_and_no_secret() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), new_certificate());
    let good = files(folder.path(), &pair);
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let secret = pair.signing_key.serialize_pem();
    let broken = write("broken.key", &secret.replace("-----END", "----- END"));
    let other = write("other.key", &new_certificate().signing_key.serialize_pem());
    let missing = folder.path().join("missing");
    let cases = [
        (TlsFiles { certificate: missing.clone(), ..good.clone() }, "missing"),
        (TlsFiles { certificate: good.key.clone(), ..good.clone() }, "tls.key holds no certificate"),
        (TlsFiles { key: good.certificate.clone(), ..good.clone() }, "tls.crt holds no private key"),
        (TlsFiles { key: broken, ..good.clone() }, "broken.key holds no private key"),
        (TlsFiles { key: other, ..good.clone() }, "other.key"),
        (TlsFiles { key: folder.path().to_owned(), ..good.clone() }, "cannot read"),
        (TlsFiles { client_ca: Some(missing), ..good.clone() }, "missing"),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (tls, part) in cases {
        let config = Config { tls: Some(tls), ..config() };
        let Err(error) = runtime.block_on(Server::bind(config)) else { panic!("{part}") };
        let error = error.to_string();
        assert!(error.contains(part), "{error}");
        assert!(!secret.lines().any(|line| !line.starts_with('-') && error.contains(line)), "{error}");
    }
}
