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

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn finish(self) -> Result<(ExtractedSecrets, Next), rustls::Error>;
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;

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
                if !wire.offer() {
                    wire.send(socket, patience).await?;
                    wire.receive(socket).await?;
                }
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
    // Tickets, or a client's last words: they leave with the first data. But before TLS 1.3 the
    // peer has to hear us before it goes on.
    if settled.version == Version::V1_2 {
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
        let version = match common.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Version::V1_2,
            ProtocolVersion::TLSv1_3 => Version::V1_3,
            _ => return None,
        };
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
            state => {
                let reason = format!("a handshake that ends as {state:?}");
                return Err(rustls::Error::General(reason));
            }
        };
        self.incoming.drain(..discard);
        self.offered -= discard;
        Ok(step)
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
