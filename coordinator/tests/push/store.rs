//! Stores of profiles in this process: Pyroscope's and Parca's services over real HTTP/2, `/ingest` over real HTTP/1, on
//! loopback, and a way to them that breaks. In: what the store knows, what goes wrong. Out: what arrived. Never: an answer
//! that is not asked for by a fault.

use fleetflame::push::wire::parca::profile_store_service_server::{
    ProfileStoreService, ProfileStoreServiceServer,
};
use fleetflame::push::wire::parca::{WriteRawRequest, WriteRawResponse};
use fleetflame::push::wire::pyroscope::pusher_service_server::{
    PusherService, PusherServiceServer,
};
use fleetflame::push::wire::pyroscope::{PushRequest, PushResponse};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// What goes wrong at one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not taken: `Unavailable`, or 503.
    Unavailable,
    /// It is not taken, for good: `InvalidArgument`, or 400.
    Invalid,
    /// It is not taken: `Unauthenticated`, or 401.
    Unauthenticated,
    /// It is taken, and never answered.
    Silent,
    /// It is taken, and the connection is reset instead of an answer.
    Reset,
}

/// One profile that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its labels; each name once.
    pub labels: BTreeMap<String, String>,
    /// The bytes.
    pub payload: Vec<u8>,
    /// Its id; empty where there is none.
    pub id: String,
    /// The headers of its request.
    pub headers: BTreeMap<String, String>,
    /// Path and query, where it came by HTTP/1.
    pub uri: String,
}

/// What the store knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knows {
    /// Pyroscope's service.
    pub pusher: bool,
    /// HTTP/2 at all.
    pub http2: bool,
    /// `/ingest`.
    pub ingest: bool,
}

/// Everything.
pub const ALL: Knows = Knows {
    pusher: true,
    http2: true,
    ingest: true,
};

#[derive(Debug)]
struct Shelf {
    taken: Mutex<Vec<Taken>>,
    requests: Mutex<u32>,
    faults: Mutex<VecDeque<Fault>>,
    cut: broadcast::Sender<()>,
}

impl Shelf {
    /// What goes wrong with this request.
    fn request(&self) -> Option<Fault> {
        *self.requests.lock().unwrap() += 1;
        self.faults.lock().unwrap().pop_front()
    }

    fn take(&self, taken: impl IntoIterator<Item = Taken>) {
        self.taken.lock().unwrap().extend(taken);
    }

    async fn take_rpc(&self, taken: Vec<Taken>) -> Result<(), Status> {
        match self.request() {
            Some(Fault::Unavailable) => return Err(Status::unavailable("down for maintenance")),
            Some(Fault::Invalid) => return Err(Status::invalid_argument("a label is wrong")),
            Some(Fault::Unauthenticated) => return Err(Status::unauthenticated("who are you")),
            Some(Fault::Silent) => {
                self.take(taken);
                std::future::pending().await
            }
            Some(Fault::Reset) => {
                self.take(taken);
                let _ = self.cut.send(());
                std::future::pending().await
            }
            None => self.take(taken),
        }
        Ok(())
    }
}

fn headers_of<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> BTreeMap<String, String> {
    headers
        .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
        .collect()
}

fn rpc_headers(metadata: &tonic::metadata::MetadataMap) -> BTreeMap<String, String> {
    let headers = metadata.clone().into_headers();
    headers_of(headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())))
}

fn labels_of(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, value) in pairs {
        assert!(
            labels.insert(name.clone(), value).is_none(),
            "{name} is there twice"
        );
    }
    labels
}

struct Services(Arc<Shelf>);

#[tonic::async_trait]
impl PusherService for Services {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let headers = rpc_headers(request.metadata());
        let mut taken = Vec::new();
        for series in request.into_inner().series {
            let labels = labels_of(series.labels.into_iter().map(|l| (l.name, l.value)));
            taken.extend(series.samples.into_iter().map(|sample| Taken {
                labels: labels.clone(),
                payload: sample.raw_profile,
                id: sample.id,
                headers: headers.clone(),
                uri: String::new(),
            }));
        }
        self.0.take_rpc(taken).await?;
        Ok(Response::new(PushResponse {}))
    }
}

#[tonic::async_trait]
impl ProfileStoreService for Services {
    async fn write_raw(
        &self,
        request: Request<WriteRawRequest>,
    ) -> Result<Response<WriteRawResponse>, Status> {
        let headers = rpc_headers(request.metadata());
        let request = request.into_inner();
        assert!(!request.normalized, "names are in the profile");
        let mut taken = Vec::new();
        for series in request.series {
            let labels = series.labels.unwrap_or_default().labels;
            let labels = labels_of(labels.into_iter().map(|l| (l.name, l.value)));
            taken.extend(series.samples.into_iter().map(|sample| Taken {
                labels: labels.clone(),
                payload: sample.raw_profile,
                id: String::new(),
                headers: headers.clone(),
                uri: String::new(),
            }));
        }
        self.0.take_rpc(taken).await?;
        Ok(Response::new(WriteRawResponse {}))
    }
}

async fn ingest(
    shelf: Arc<Shelf>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let answer = |status: u16, said: &'static str| {
        let body = Full::new(Bytes::from_static(said.as_bytes()));
        Ok(hyper::Response::builder()
            .status(status)
            .body(body)
            .unwrap())
    };
    if request.uri().path() != "/ingest" {
        return answer(404, "page not found");
    }
    let uri = request.uri().to_string();
    let headers = request.headers().iter();
    let headers = headers_of(headers.map(|(n, v)| (n.as_str(), v.as_bytes())));
    let Ok(body) = request.into_body().collect().await else {
        return answer(408, "the body is not whole");
    };
    let taken = Taken {
        labels: BTreeMap::new(),
        payload: body.to_bytes().to_vec(),
        id: String::new(),
        headers,
        uri,
    };
    match shelf.request() {
        Some(Fault::Unavailable) => answer(503, "down for maintenance"),
        Some(Fault::Invalid) => answer(400, "a label is wrong"),
        Some(Fault::Unauthenticated) => answer(401, "who are you"),
        Some(Fault::Silent) => {
            shelf.take([taken]);
            std::future::pending().await
        }
        Some(Fault::Reset) => {
            shelf.take([taken]);
            let _ = shelf.cut.send(());
            std::future::pending().await
        }
        None => {
            shelf.take([taken]);
            answer(200, "")
        }
    }
}

/// A store, and a way to it that can be broken.
pub struct StoreServer {
    runtime: Runtime,
    shelf: Arc<Shelf>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl StoreServer {
    /// Starts one that does everything right.
    pub fn start(knows: Knows) -> Self {
        Self::start_with(knows, vec![], None, None)
    }

    /// Starts one with faults for the first requests; the first connection on which more than `cut_after_bytes` come is
    /// reset there; TLS is spoken with `tls`.
    pub fn start_with(
        knows: Knows,
        faults: Vec<Fault>,
        cut_after_bytes: Option<usize>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shelf = Arc::new(Shelf {
            taken: Mutex::default(),
            requests: Mutex::default(),
            faults: Mutex::new(faults.into()),
            cut: broadcast::channel(1).0,
        });
        let (store, way) = runtime.block_on(async {
            let store = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let way = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (store, way)
        });
        let (behind, address) = (store.local_addr().unwrap(), way.local_addr().unwrap());
        runtime.spawn(serve(store, knows, shelf.clone()));
        runtime.spawn(pass_on(way, behind, shelf.clone(), cut_after_bytes, tls));
        Self {
            runtime,
            shelf,
            address,
        }
    }

    /// What it has taken, in order.
    pub fn taken(&self) -> Vec<Taken> {
        self.shelf.taken.lock().unwrap().clone()
    }

    /// How many requests came that were whole.
    pub fn requests(&self) -> u32 {
        *self.shelf.requests.lock().unwrap()
    }

    /// Runs something beside it.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// Accepts connections and gives each to the HTTP that it begins with.
async fn serve(listener: TcpListener, knows: Knows, shelf: Arc<Shelf>) {
    let (to_rpc, rpc) = mpsc::channel::<std::io::Result<TcpStream>>(8);
    let parca = ProfileStoreServiceServer::new(Services(shelf.clone()));
    let pusher = PusherServiceServer::new(Services(shelf.clone()));
    let server = tonic::transport::Server::builder().add_service(parca);
    let server = server.add_optional_service(knows.pusher.then_some(pusher));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(rpc)));
    while let Ok((stream, _)) = listener.accept().await {
        let mut first = [0; 3];
        let Ok(3) = stream.peek(&mut first).await else {
            continue;
        };
        if &first == b"PRI" && knows.http2 || !knows.ingest {
            let _ = to_rpc.send(Ok(stream)).await;
            continue;
        }
        let shelf = shelf.clone();
        let service = hyper::service::service_fn(move |request| ingest(shelf.clone(), request));
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(served);
    }
}

/// The way to the store: passes bytes on, and resets connections.
async fn pass_on(
    listener: TcpListener,
    behind: SocketAddr,
    shelf: Arc<Shelf>,
    cut_after_bytes: Option<usize>,
    tls: Option<TlsAcceptor>,
) {
    let limit = Arc::new(Mutex::new(cut_after_bytes));
    while let Ok((client, _)) = listener.accept().await {
        let (limit, tls) = (limit.clone(), tls.clone());
        let mut cut = shelf.cut.subscribe();
        tokio::spawn(async move {
            // Closing resets it: what is not sent yet is thrown away.
            client.set_zero_linger().unwrap();
            let mut store = TcpStream::connect(behind).await.unwrap();
            let passing = async {
                match tls {
                    None => pass(client, &mut store, &limit).await,
                    Some(tls) => {
                        if let Ok(client) = tls.accept(client).await {
                            pass(client, &mut store, &limit).await;
                        }
                    }
                }
            };
            tokio::select! { () = passing => {}, _ = cut.recv() => {} }
        });
    }
}

/// Until one side ends, or more came than the limit allows, which is then gone.
async fn pass(
    client: impl AsyncRead + AsyncWrite,
    store: &mut TcpStream,
    limit: &Mutex<Option<usize>>,
) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_store, mut to_store) = store.split();
    let up = async {
        let (mut room, mut passed) = (vec![0; 1 << 14], 0);
        while let Ok(read @ 1..) = from_client.read(&mut room).await {
            passed += read;
            let over = limit.lock().unwrap().take_if(|limit| passed > *limit);
            let read = over.map_or(read, |limit| read - (passed - limit));
            if to_store.write_all(&room[..read]).await.is_err() || over.is_some() {
                break;
            }
        }
    };
    let down = async {
        let mut room = vec![0; 1 << 14];
        while let Ok(read @ 1..) = from_store.read(&mut room).await {
            if to_client.write_all(&room[..read]).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! { () = up => {}, () = down => {} }
}
