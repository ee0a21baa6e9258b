//! A cluster of fake nodes: real sockets and real frames, and answers that a test makes up.
//!
//! Each request that is not for the cluster state is a [`Call`], given to the test's script with
//! everything needed to answer it: now, later, in another order, or not at all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use ringdove::client::{Builder, Client};
use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::membership::{ClusterState, Contact, MemberEntry, Topology};
use ringdove::time::Instant;
use ringdove::wire::messages::{
    Control, ControlReply, Done, Failure, FailureCode, Get, Got, Put, Receipt, Request, Response,
    TopologyVersion, Value,
};
use ringdove::wire::{codec, frame, greeting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a node does with a request.
pub type Script = Arc<dyn Fn(Call) + Send + Sync>;

/// A request that a node has received.
pub struct Call {
    /// Which node, in the order of the cluster's addresses.
    pub node: usize,
    /// The request.
    pub request: Request,
    id: u64,
    version: TopologyVersion,
    line: UnboundedSender<Line>,
}

enum Line {
    Bytes(BytesMut),
    Close,
}

pub struct Cluster {
    pub addresses: Vec<String>,
    pub state: Arc<Mutex<ClusterState>>,
    /// Connections that were greeted, ever.
    pub connections: Arc<AtomicUsize>,
    /// Of those, still open.
    pub open: Arc<AtomicUsize>,
    /// Requests for the cluster state.
    pub lookups: Arc<AtomicUsize>,
    /// No node answers a ping.
    pub is_hung: Arc<AtomicBool>,
    calls: Mutex<UnboundedReceiver<Request>>,
}

impl Cluster {
    pub async fn start(nodes: usize, script: impl Fn(Call) + Send + Sync + 'static) -> Self {
        let script: Script = Arc::new(script);
        let mut listeners = Vec::new();
        for _ in 0..nodes {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let address = |l: &TcpListener| l.local_addr().unwrap().to_string();
        let addresses: Vec<String> = listeners.iter().map(address).collect();
        let mut state = ClusterState::new("fake", 64);
        for (index, address) in addresses.iter().enumerate() {
            let (id, contact) = (NodeId(index as u128), contact(index, address));
            state.enter(id, MemberEntry::candidate(id, contact, "", limits::WEIGHT_NORMAL));
        }
        state.form(nodes);
        let (record, calls) = unbounded_channel();
        let cluster = Self {
            addresses,
            state: Arc::new(Mutex::new(state)),
            connections: Arc::default(),
            open: Arc::default(),
            lookups: Arc::default(),
            is_hung: Arc::default(),
            calls: Mutex::new(calls),
        };
        for (node, listener) in listeners.into_iter().enumerate() {
            let shared = Shared {
                node,
                script: script.clone(),
                state: cluster.state.clone(),
                connections: cluster.connections.clone(),
                open: cluster.open.clone(),
                lookups: cluster.lookups.clone(),
                is_hung: cluster.is_hung.clone(),
                record: record.clone(),
            };
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(shared.clone(), stream));
                }
            });
        }
        cluster
    }

    pub fn builder(&self) -> Builder {
        Client::builder().seeds(&self.addresses)
    }

    /// The nodes that hold `key` of the bucket `default`, in order of preference.
    pub fn primaries(&self, key: &str) -> Vec<usize> {
        let topology = Topology::new(self.state.lock().unwrap().clone());
        let key = Key::new(b"default", key.as_bytes()).unwrap();
        let primaries = topology.primaries(topology.partition(&key), 3);
        primaries.iter().map(|id| id.0 as usize).collect()
    }

    /// The requests received since the last time, except those for the cluster state.
    pub fn calls(&self) -> Vec<Request> {
        let mut calls = self.calls.lock().unwrap();
        std::iter::from_fn(|| calls.try_recv().ok()).collect()
    }

    pub fn puts(&self) -> Vec<Put> {
        let put = |request| match request {
            Request::Put(put) => Some(put),
            _ => None,
        };
        self.calls().into_iter().filter_map(put).collect()
    }

    pub fn gets(&self) -> Vec<Get> {
        let get = |request| match request {
            Request::Get(get) => Some(get),
            _ => None,
        };
        self.calls().into_iter().filter_map(get).collect()
    }
}

pub fn contact(index: usize, address: &str) -> Contact {
    let (name, address) = (format!("node-{index}"), address.to_owned());
    Contact { name, address, text_address: String::new() }
}

impl Call {
    pub fn answer(self, response: Response) {
        let mut out = BytesMut::new();
        codec::encode_response(&mut out, self.id, &response);
        let _ = self.line.send(Line::Bytes(out));
    }

    /// To a read: its key's name as the value. To a write: done.
    pub fn succeed(self) {
        let response = match &self.request {
            Request::Get(get) => got(self.version, &[get.key.name_bytes()]),
            Request::Put(_) => done(self.version),
            _ => Response::Control(ControlReply::Ok),
        };
        self.answer(response);
    }

    pub fn fail(self, code: FailureCode) {
        self.answer(Response::Failed(Failure::not_applied(code, format!("{code:?}, it says"))));
    }

    /// Sends bytes that need not be a frame.
    pub fn send_raw(&self, bytes: &[u8]) {
        let _ = self.line.send(Line::Bytes(bytes.into()));
    }

    /// A whole frame, under the right id, with a payload that is no answer.
    pub fn answer_nonsense(self) {
        let mut out = BytesMut::new();
        let none = frame::Marks::NONE;
        frame::encode(&mut out, frame::Kind::Got, none, self.id, |out| out.extend_from_slice(b"?"));
        let _ = self.line.send(Line::Bytes(out));
    }

    pub fn go_away(&self) {
        let mut out = BytesMut::new();
        greeting::encode_goaway(&mut out, "stopping");
        let _ = self.line.send(Line::Bytes(out));
    }

    pub fn close(self) {
        let _ = self.line.send(Line::Close);
    }

    pub fn version(&self) -> TopologyVersion {
        self.version
    }
}

pub fn receipt(topology: TopologyVersion) -> Receipt {
    Receipt {
        n: 3,
        needed: 2,
        acks: 2,
        primaries: 2,
        fallbacks: 0,
        fsynced: 2,
        zones: 1,
        coordinator: NodeId(0),
        micros: 100,
        topology,
    }
}

pub fn got(topology: TopologyVersion, values: &[Bytes]) -> Response {
    use ringdove::causality::{Actor, Dot, Hlc};
    let value = |(index, data): (usize, &Bytes)| Value {
        dot: Dot { actor: Actor { incarnation: Incarnation(1), k: index as u64 }, counter: 1 },
        write_id: ringdove::ids::WriteId(index as u128),
        hlc: Hlc(1 << 16),
        expires_at: None,
        data: data.clone(),
    };
    Response::Got(Got {
        context: Bytes::from_static(b"seen"),
        values: values.iter().enumerate().map(value).collect(),
        deleted: false,
        receipt: receipt(topology),
        trace: Vec::new(),
    })
}

pub fn done(topology: TopologyVersion) -> Response {
    Response::Done(Done { context: Bytes::from_static(b"wrote"), receipt: receipt(topology) })
}

#[derive(Clone)]
struct Shared {
    node: usize,
    script: Script,
    state: Arc<Mutex<ClusterState>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    lookups: Arc<AtomicUsize>,
    is_hung: Arc<AtomicBool>,
    record: UnboundedSender<Request>,
}

async fn serve(shared: Shared, stream: TcpStream) {
    let (mut reading, mut writing) = stream.into_split();
    let (line, mut lines) = unbounded_channel();
    let read = async {
        let mut buffer = BytesMut::new();
        loop {
            while let Some(frame) = frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES).unwrap()
            {
                shared.take(&frame, &line);
            }
            if reading.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
    };
    let write = async {
        while let Some(Line::Bytes(bytes)) = lines.recv().await {
            if writing.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

impl Shared {
    fn take(&self, frame: &frame::Frame, line: &UnboundedSender<Line>) {
        if frame.kind == frame::Kind::Hello {
            greeting::decode_hello(frame).unwrap();
            self.connections.fetch_add(1, Ordering::SeqCst);
            self.open.fetch_add(1, Ordering::SeqCst);
            let mut out = BytesMut::new();
            greeting::encode_welcome(&mut out, &self.welcome());
            let _ = line.send(Line::Bytes(out));
            return;
        }
        if frame.kind == frame::Kind::Ping {
            if !self.is_hung.load(Ordering::SeqCst) {
                let mut out = BytesMut::new();
                greeting::encode_pong(&mut out, frame.id, Instant(0));
                let _ = line.send(Line::Bytes(out));
            }
            return;
        }
        let request = codec::decode_request(frame).unwrap();
        let version = self.state.lock().unwrap().version();
        let call = Call { node: self.node, request, id: frame.id, version, line: line.clone() };
        if call.request == Request::Control(Control::Topology) {
            self.lookups.fetch_add(1, Ordering::SeqCst);
            let state = self.state.lock().unwrap().encode();
            call.answer(Response::Control(ControlReply::Topology(state)));
            return;
        }
        let _ = self.record.send(call.request.clone());
        (self.script)(call);
    }

    fn welcome(&self) -> greeting::Welcome {
        greeting::Welcome {
            version: frame::VERSION,
            features: 0,
            cluster: "fake".to_owned(),
            node: NodeId(self.node as u128),
            incarnation: Incarnation(1),
            name: format!("node-{}", self.node),
            clock: Instant(0),
            topology: self.state.lock().unwrap().version(),
            key_bytes: limits::KEY_BYTES_DEFAULT as u32,
            value_bytes: limits::VALUE_BYTES_DEFAULT as u32,
        }
    }
}
