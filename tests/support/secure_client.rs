//! A TLS client that speaks HTTP as [`super::RawClient`] does: rustls with its own record layer,
//! which the proxy does not use.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{PATIENCE, Response};

pub struct SecureClient {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    /// Read, but not yet asked for.
    buffer: Vec<u8>,
}

impl SecureClient {
    /// Trusts `authority`, shows no certificate.
    pub fn config(authority: &Path) -> ClientConfig {
        Self::builder(authority).with_no_client_auth()
    }

    /// Shows a certificate: `NAME.pem` and `NAME.key`.
    pub fn config_with(authority: &Path, certificate: &Path) -> ClientConfig {
        let chain = CertificateDer::pem_file_iter(certificate).expect("the file is PEM");
        let chain = chain.collect::<Result<_, _>>().expect("the file has certificates");
        let key = PrivateKeyDer::from_pem_file(certificate.with_extension("key"));
        let key = key.expect("the key is beside it");
        let builder = Self::builder(authority);
        builder.with_client_auth_cert(chain, key).expect("the key is the certificate's")
    }

    fn builder(
        authority: &Path,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority).expect("the file is PEM") {
            roots.add(certificate.expect("the file has certificates")).expect("it is one");
        }
        // As browsers do: the hybrid first.
        let mut provider = aws_lc_rs::default_provider();
        let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
        provider.kx_groups.retain(|group| group.name() != hybrid.name());
        provider.kx_groups.insert(0, hybrid);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_safe_default_protocol_versions().expect("both");
        builder.with_root_certificates(roots)
    }

    pub fn connect(address: SocketAddr, host: &str, authority: &Path) -> Self {
        Self::connect_with(address, host, Arc::new(Self::config(authority)))
    }

    pub fn connect_with(address: SocketAddr, host: &str, config: Arc<ClientConfig>) -> Self {
        Self::try_connect(address, host, config)
            .unwrap_or_else(|error| panic!("no TLS with {host} on {address}: {error}"))
    }

    /// Comes back when the client is done with its handshake; the proxy may still refuse it.
    pub fn try_connect(
        address: SocketAddr,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(host.to_owned()).expect("the test names a host");
        let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self::of(session, socket))
    }

    pub fn of(session: ClientConnection, socket: TcpStream) -> Self {
        Self { stream: StreamOwned::new(session, socket), buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the peer takes what is sent");
        self.stream.flush().expect("the peer takes what is sent");
    }

    pub fn read_response(&mut self) -> Response {
        self.try_read_response_to("GET").unwrap_or_else(|error| panic!("no response: {error}"))
    }

    pub fn try_read_response_to(&mut self, method: &str) -> io::Result<Response> {
        Response::read(&mut self.stream, &mut self.buffer, method)
    }

    /// `GET target`, keep-alive, and its response.
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.read_response()
    }

    /// Everything until the end, and whether the peer has said that it is the end.
    pub fn read_to_end(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = std::mem::take(&mut self.buffer);
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => (bytes, false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (bytes, false),
            Err(error) => panic!("not closed ({error}) after {} bytes", bytes.len()),
        }
    }

    /// Says goodbye and ends our side; the other stays open.
    pub fn half_close(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("the peer takes what is sent");
        self.stream.sock.shutdown(Shutdown::Write).expect("the socket was connected");
    }

    /// Ends our side as if it had been cut.
    pub fn cut(&mut self) {
        self.stream.sock.shutdown(Shutdown::Write).expect("the socket was connected");
    }
}
