//! A handshake on a socket: rustls says what to send and needs what came; what it makes of it
//! becomes a [`Session`]. While the peer is silent nothing is held but the bytes that are not a
//! whole record yet.

use std::io;
use std::task::Poll;
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CipherSuite, CommonState, ExtractedSecrets, HandshakeKind, ProtocolVersion};
use rustls_pki_types::CertificateDer;

use crate::engine::{self, Side, Socket};
use crate::limits;
use crate::tls::record;
use crate::tls::session::{Keys, Next, Session};
use crate::tls::settings::Version;

/// What a handshake has settled.
pub(crate) struct Settled {
    pub(crate) version: Version,
    pub(crate) suite: CipherSuite,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) is_resumed: bool,
    /// The peer's certificate, and those that it sent with it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It has broken the rules, or we do not agree; the peer was told.
    Refused(rustls::Error),
    /// The peer says so.
    Lost(io::Error),
}

/// One side of a connection, as rustls has it.
pub(super) trait Handshake: Sized {
    type Data;
    const IS_SERVER: bool;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn finish(self) -> Result<(ExtractedSecrets, Next), rustls::Error>;
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_SERVER: bool = true;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn finish(self) -> Result<(ExtractedSecrets, Next), rustls::Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Next::Server(kernel)))
    }
}

impl Handshake for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_SERVER: bool = false;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn finish(self) -> Result<(ExtractedSecrets, Next), rustls::Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Next::Client(kernel)))
    }
}

/// Runs it to its end, with `patience` for each thing that is sent; how long the peer may be silent
/// is for the socket's deadline to say.
pub(super) async fn run<H: Handshake>(
    socket: &Socket,
    mut handshake: H,
    patience: Duration,
) -> Result<(Session, Settled), Failed> {
    let mut wire = Wire::default();
    loop {
        match wire.step(&mut handshake) {
            Ok(Step::Go) => {}
            Ok(Step::Read) => {
                wire.send(socket, patience).await?;
                wire.receive(socket).await?;
            }
            Ok(Step::Done) => break,
            Ok(Step::Left) => return Err(Failed::Lost(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => {
                // What it wants the peer to be told comes next. It must not read any further.
                while handshake.common().wants_write()
                    && let Ok(Step::Go) = wire.step(&mut handshake)
                {}
                let _ = wire.send(socket, patience).await;
                return Err(Failed::Refused(error));
            }
        }
    }
    let settled = Settled::of(handshake.common()).ok_or_else(unknown)?;
    // A client's last words leave with its first data, and a server's tickets with its answer, if
    // the request is here. Else they leave now: before TLS 1.3 the peer waits for them, and later
    // its kernel may hold the request back (Nagle) until it has heard that its last words arrived.
    let request_is_here = !wire.plain.is_empty() || !wire.incoming.is_empty();
    if H::IS_SERVER && !request_is_here && wire.outgoing.is_empty() {
        socket.acknowledge();
    } else if settled.version == Version::V1_2 || (H::IS_SERVER && !request_is_here) {
        wire.send(socket, patience).await?;
    }
    let (ExtractedSecrets { tx: send, rx: receive }, next) =
        handshake.finish().map_err(Failed::Refused)?;
    let Wire { incoming: undecided, outgoing, plain, .. } = wire;
    let version = settled.version;
    let keys = Keys { version, send, receive, next, plain, undecided, outgoing };
    Ok((Session::new(keys).ok_or_else(unknown)?, settled))
}

/// Of something that we have never offered.
fn unknown() -> Failed {
    Failed::Refused(rustls::Error::General("neither TLS 1.2 nor 1.3 as we know it".to_owned()))
}

impl Settled {
    fn of(common: &CommonState) -> Option<Settled> {
        let known =
            [(ProtocolVersion::TLSv1_2, Version::V1_2), (ProtocolVersion::TLSv1_3, Version::V1_3)];
        let spoken = common.protocol_version()?;
        let (_, version) = known.into_iter().find(|(version, _)| *version == spoken)?;
        Some(Settled {
            version,
            suite: common.negotiated_cipher_suite()?.suite(),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            is_resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            chain: common.peer_certificates().unwrap_or_default().to_vec(),
        })
    }
}

/// What came and is not used, and what is to be sent.
#[derive(Default)]
struct Wire {
    incoming: Vec<u8>,
    /// Of that, what rustls may look at: to the end of a record, which may not be here yet.
    offered: usize,
    outgoing: Vec<u8>,
    /// Data that came right behind the handshake.
    plain: Vec<u8>,
    received: usize,
}

enum Step {
    Go,
    Read,
    Done,
    /// The peer has ended it, politely.
    Left,
}

impl Wire {
    /// One record more. What comes right behind a handshake is not for rustls, which would answer a
    /// change of keys with the next data that it is given, and it is given none.
    fn offer(&mut self) -> bool {
        let length = self.incoming.get(self.offered..).and_then(record::length);
        self.offered += length.unwrap_or_default();
        length.is_some()
    }

    fn step<H: Handshake>(&mut self, handshake: &mut H) -> Result<Step, rustls::Error> {
        let offered = self.offered.min(self.incoming.len());
        let incoming = &mut self.incoming[..offered];
        let UnbufferedStatus { mut discard, state, .. } = handshake.process(incoming);
        let step = match state? {
            ConnectionState::EncodeTlsData(mut data) => {
                let at = self.outgoing.len();
                self.outgoing.resize(at + ENCODE_ROOM, 0);
                let mut encoded = data.encode(&mut self.outgoing[at..]);
                if let Err(EncodeError::InsufficientSize(needed)) = &encoded {
                    self.outgoing.resize(at + needed.required_size, 0);
                    encoded = data.encode(&mut self.outgoing[at..]);
                }
                self.outgoing.truncate(at + encoded.as_ref().copied().unwrap_or_default());
                encoded.map_err(|error| rustls::Error::General(error.to_string()))?;
                Step::Go
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Step::Go
            }
            ConnectionState::BlockedHandshake => Step::Read,
            ConnectionState::WriteTraffic(_) => Step::Done,
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    self.plain.extend_from_slice(record.payload);
                }
                Step::Go
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => Step::Left,
            // Nobody is offered to send early; and what there may be one day, we do not know.
            state @ (ConnectionState::ReadEarlyData(_) | _) => {
                let reason = format!("a handshake that ends as {state:?}");
                return Err(rustls::Error::General(reason));
            }
        };
        self.incoming.drain(..discard);
        self.offered -= discard;
        Ok(match step {
            Step::Read if self.offer() => Step::Go,
            Step::Go | Step::Read | Step::Done | Step::Left => step,
        })
    }

    async fn send(&mut self, socket: &Socket, patience: Duration) -> Result<(), Failed> {
        let bytes = std::mem::take(&mut self.outgoing);
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = socket.send(&[&bytes, b"", b""], patience).await;
        sent.map_err(|error| Failed::Lost(error.cause))
    }

    async fn receive(&mut self, socket: &Socket) -> Result<(), Failed> {
        if self.received > limits::TLS_HANDSHAKE_BYTES_MAX {
            return Err(Failed::Lost(io::ErrorKind::InvalidData.into()));
        }
        loop {
            let tried = std::future::poll_fn(|context| {
                let mut buffer = engine::buffer();
                let received = socket.poll_recv(context, &mut buffer);
                if let Poll::Ready(Ok(count)) = received {
                    self.incoming.extend_from_slice(&buffer[..count]);
                }
                Poll::Ready(received)
            });
            match tried.await {
                Poll::Ready(Ok(0)) => {
                    return Err(Failed::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(count)) => {
                    self.received += count;
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(Failed::Lost(error)),
                Poll::Pending => socket.ready(Side::Read).await.map_err(Failed::Lost)?,
            }
        }
    }
}

/// For one message of a handshake, unless it says that it is longer.
const ENCODE_ROOM: usize = 2048;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc as Handle; // tidy: required by rustls

    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use rustls_pki_types::PrivateKeyDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;
    use crate::tls::server::{provider, versions};
    use crate::tls::settings::Versions;
    use crate::tls::test_pki::Pki;

    /// Both ends of a connection: the client's and the server's.
    pub(crate) fn pair(test: &str, version: Version) -> (Session, Session) {
        let pki = Pki::new(test);
        pki.root("root");
        pki.issue("leaf", "root", "ec", "subjectAltName=DNS:localhost");
        let root = CertificateDer::from(pki.der("root"));
        let chain = vec![CertificateDer::from(pki.der("leaf"))];
        let key = PrivateKeyDer::from_pem_slice(&pki.read("leaf.key")).expect("it is a key");
        let range = versions(Versions { min: version, max: version });
        let suites: Vec<CipherSuite> = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES
            .iter()
            .map(rustls::SupportedCipherSuite::suite)
            .collect();
        let provider = Handle::new(provider(&suites));
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("it is a root");
        let server = ServerConfig::builder_with_provider(Handle::clone(&provider))
            .with_protocol_versions(range)
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut server = server.expect("the certificate is good");
        server.enable_secret_extraction = true;
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(range);
        let mut client = client
            .expect("the versions are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        let name = "localhost".try_into().expect("it is a name");
        let client = UnbufferedClientConnection::new(client.into(), name);
        let server = UnbufferedServerConnection::new(server.into());
        shake(client.expect("a client"), server.expect("a server"))
    }

    fn shake(
        mut client: UnbufferedClientConnection,
        mut server: UnbufferedServerConnection,
    ) -> (Session, Session) {
        let (mut ours, mut theirs) = (Wire::default(), Wire::default());
        let (mut ours_is_done, mut theirs_is_done) = (false, false);
        while !ours_is_done || !theirs_is_done {
            ours_is_done |= turn(&mut ours, &mut client);
            theirs.incoming.append(&mut ours.outgoing);
            theirs_is_done |= turn(&mut theirs, &mut server);
            if !theirs_is_done || !ours_is_done {
                ours.incoming.append(&mut theirs.outgoing);
            }
        }
        (session(ours, client), session(theirs, server))
    }

    /// True: the handshake is over on this side.
    fn turn<H: Handshake>(wire: &mut Wire, handshake: &mut H) -> bool {
        loop {
            match wire.step(handshake).expect("both keep the rules") {
                Step::Go => {}
                Step::Done => return true,
                Step::Read => return false,
                Step::Left => unreachable!("nobody leaves"),
            }
        }
    }

    fn session<H: Handshake>(wire: Wire, handshake: H) -> Session {
        let version = Settled::of(handshake.common()).expect("it is settled").version;
        let (ExtractedSecrets { tx: send, rx: receive }, next) =
            handshake.finish().expect("keys come out");
        let Wire { incoming: undecided, outgoing, plain, .. } = wire;
        Session::new(Keys { version, send, receive, next, plain, undecided, outgoing })
            .expect("a cipher of ours")
    }
}
