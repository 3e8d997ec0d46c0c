//! A Docker engine that only says so: its containers are [`FakeServer`]s of
//! this process, its clock goes on by a second with everything that happens.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::{
    fake_server::{FakeServer, Speaks},
    node::Setup,
    wire::Owned,
};

/// What tests, and what is asked of it, have in common.
#[derive(Default)]
struct World {
    clock: u64,
    /// Ids, by the names there are.
    images: BTreeMap<String, String>,
    networks: BTreeMap<String, Value>,
    containers: BTreeMap<String, Container>,
    /// Names of containers, each time one was started.
    starts: Vec<String>,
    /// Seconds that containers were given to end.
    graces: Vec<String>,
    events: Vec<Value>,
}

struct Container {
    name: String,
    body: Value,
    /// `created`, `running`, `exited`
    status: &'static str,
    started: u64,
    finished: u64,
    server: Option<FakeServer>,
}

struct Shared {
    world: Mutex<World>,
    /// How many events are told.
    told: watch::Sender<usize>,
    are_events_held: Mutex<bool>,
    /// Whether pulls come to their end.
    are_pulls_held: watch::Sender<bool>,
}

/// The engine. Dropping it closes it.
pub(crate) struct FakeEngine {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: Owned<()>,
}

impl FakeEngine {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            told: watch::Sender::new(0),
            are_events_held: Mutex::new(false),
            are_pulls_held: watch::Sender::new(false),
        });
        let app = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        });
        Self {
            address,
            shared,
            _serving: Owned(serving),
        }
    }

    /// A node that has it.
    pub(crate) fn setup(&self) -> Setup {
        Setup::new()
            .set(
                "engine.docker.host",
                &format!("\"http://{}\"", self.address),
            )
            .set("engine.docker.reach", "\"publish\"")
    }

    /// There is an image of that name, or the name is another one's now.
    pub(crate) fn has_image(&self, name: &str, id: &str) {
        let mut world = self.world();
        for name in [name, id] {
            world.images.insert(name.to_owned(), id.to_owned());
        }
    }

    /// Somebody removes an image.
    pub(crate) fn lose_image(&self, name: &str) {
        self.world().images.remove(name);
    }

    /// Somebody removes all containers.
    pub(crate) fn lose_containers(&self) {
        let mut world = self.world();
        let ids: Vec<_> = world.containers.keys().cloned().collect();
        for id in ids {
            world.remove(&id);
        }
        self.shared.tell(world.events.len());
    }

    /// Pulls go on without an end, or give images of their own names.
    pub(crate) fn hold_pulls(&self, are_held: bool) {
        self.shared.are_pulls_held.send_replace(are_held);
    }

    /// Nobody hears of what happens, or all at once hear of it.
    pub(crate) fn hold_events(&self, are_held: bool) {
        let mut held = self.shared.are_events_held.lock().expect("not poisoned");
        *held = are_held;
        if !are_held {
            self.shared.told.send_replace(self.world().events.len());
        }
    }

    /// Names and images of the containers that run.
    pub(crate) fn running(&self) -> Vec<(String, String)> {
        let world = self.world();
        let running = world
            .containers
            .values()
            .filter(|one| one.status == "running");
        let text = |one: &Container| one.body["Image"].as_str().unwrap_or_default().to_owned();
        let mut running: Vec<_> = running.map(|one| (one.name.clone(), text(one))).collect();
        running.sort();
        running
    }

    /// How often a container was started.
    pub(crate) fn starts(&self, name: &str) -> usize {
        let world = self.world();
        world.starts.iter().filter(|one| *one == name).count()
    }

    /// Seconds that containers were given to end, each time.
    pub(crate) fn graces(&self) -> Vec<String> {
        self.world().graces.clone()
    }

    /// Ends a container.
    pub(crate) fn crash(&self, name: &str) {
        let mut world = self.world();
        let id = world.find(name).expect("it is there");
        world.end(&id);
        self.shared.tell(world.events.len());
    }

    /// Somebody removes all networks.
    pub(crate) fn lose_networks(&self) {
        self.world().networks.clear();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("not poisoned")
    }

    fn tell(&self, events: usize) {
        if !*self.are_events_held.lock().expect("not poisoned") {
            self.told.send_replace(events);
        }
    }
}

impl World {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn find(&self, name: &str) -> Option<String> {
        let mut all = self.containers.iter();
        let found = all.find(|(id, one)| *id == name || one.name == name);
        found.map(|(id, _)| id.clone())
    }

    fn happen(&mut self, id: &str, action: &str) {
        let time = self.tick();
        let one = &self.containers[id];
        let mut attributes = one.body["Labels"].clone();
        attributes["name"] = json!(one.name);
        attributes["exitCode"] = json!("137");
        self.events
            .push(json!({"Type": "container", "Action": action, "time": time,
            "Actor": {"ID": id, "Attributes": attributes}}));
    }

    fn end(&mut self, id: &str) {
        let finished = self.tick();
        let one = self.containers.get_mut(id).expect("it is there");
        if one.status == "running" {
            (one.status, one.finished, one.server) = ("exited", finished, None);
            self.happen(id, "die");
        }
    }

    fn remove(&mut self, id: &str) {
        self.end(id);
        self.happen(id, "destroy");
        self.containers.remove(id);
    }

    fn summary(&self, id: &str) -> Value {
        let one = &self.containers[id];
        json!({"Id": id, "Names": [format!("/{}", one.name)], "Labels": one.body["Labels"],
            "State": one.status, "HostConfig": {"NetworkMode": one.body["HostConfig"]["NetworkMode"]}})
    }

    fn inspected(&self, id: &str) -> Value {
        let one = &self.containers[id];
        let port = one.server.as_ref().map(|server| server.address.port());
        let exposed = one.body["HostConfig"]["PortBindings"].as_object();
        let exposed = exposed.and_then(|ports| ports.keys().next()).zip(port);
        let mut ports = BTreeMap::new();
        if let Some((exposed, port)) = exposed {
            let bound = json!([{"HostIp": "127.0.0.1", "HostPort": port.to_string()}]);
            ports.insert(exposed.clone(), bound);
        }
        json!({"Id": id, "Name": format!("/{}", one.name), "Created": time(1), "Image": one.body["Image"],
            "Config": {"Labels": one.body["Labels"]},
            "State": {"Status": one.status, "ExitCode": 137, "OOMKilled": false, "Error": "",
                "StartedAt": time(one.started), "FinishedAt": time(one.finished)},
            "NetworkSettings": {"Ports": ports, "Networks": {}}})
    }
}

/// As engines write it.
fn time(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("1970-01-01T{hours:02}:{minutes:02}:{:02}Z", seconds % 60)
}

fn answer(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if status == 204 || status == 304 {
        *response.body_mut() = Body::empty();
    }
    response
}

fn no(message: &str) -> Response<Body> {
    answer(404, &json!({"message": message}))
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let query = Query::<HashMap<String, String>>::try_from_uri(request.uri());
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let path = request.uri().path().replace("%2F", "/").replace("%3A", ":");
    let path = path.replace("%40", "@");
    let path = path.trim_start_matches('/');
    let path = match path.split_once('/') {
        Some((version, path)) if version.starts_with("v1.") => path,
        _ => path,
    };
    let (method, path) = (request.method().clone(), path.to_owned());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
    match path.split('/').next() {
        Some("events") => events(&shared, &query),
        Some("images") => images(&shared, &path, &query).await,
        Some("networks") => networks(&shared, &method, &path, &body),
        Some("containers") => containers(&shared, &method, &path, &query, body).await,
        Some("volumes") => answer(200, &json!({"Volumes": [], "Warnings": []})),
        Some("version") => answer(
            200,
            &json!({"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
        ),
        Some("info") => {
            let now = time(shared.world().clock);
            answer(
                200,
                &json!({"ID": "fake", "OSType": "linux", "Architecture": "x86_64",
                "CgroupVersion": "2", "SystemTime": now}),
            )
        }
        Some("_ping") => answer(200, &json!("OK")),
        _ => no("page not found"),
    }
}

/// What happened since then, and what happens.
fn events(shared: &Arc<Shared>, query: &HashMap<String, String>) -> Response<Body> {
    if query.contains_key("until") {
        return Response::new(Body::empty());
    }
    let since = query.get("since").and_then(|since| since.parse().ok());
    let since: u64 = since.unwrap_or_default();
    let state = (Arc::clone(shared), shared.told.subscribe(), 0);
    let told =
        futures_util::stream::unfold(state, move |(shared, mut told, mut next)| async move {
            loop {
                if next >= *told.borrow_and_update() {
                    told.changed().await.ok()?;
                    continue;
                }
                let event = shared.world().events[next].clone();
                next += 1;
                if event["time"].as_u64() >= Some(since) {
                    let line = Bytes::from(format!("{event}\n"));
                    return Some((
                        Ok::<_, std::convert::Infallible>(line),
                        (shared, told, next),
                    ));
                }
            }
        });
    Response::new(Body::from_stream(told))
}

async fn images(shared: &Shared, path: &str, query: &HashMap<String, String>) -> Response<Body> {
    if path == "images/create" {
        let name = format!("{}:{}", query["fromImage"], query["tag"]);
        if !name.starts_with("slow") {
            return no("pull access denied");
        }
        let mut held = shared.are_pulls_held.subscribe();
        held.wait_for(|held| !held).await.ok();
        let id = format!("sha256:{name}");
        let mut world = shared.world();
        for name in [name, id.clone()] {
            world.images.insert(name, id.clone());
        }
        return answer(200, &json!({"status": "done"}));
    }
    let name = path.trim_start_matches("images/").trim_end_matches("/json");
    let world = shared.world();
    match world.images.get(name) {
        Some(id) => answer(
            200,
            &json!({"Id": id, "Os": "linux", "Architecture": "amd64",
            "Config": {"Entrypoint": ["serve"]}}),
        ),
        None => no(&format!("No such image: {name}")),
    }
}

fn networks(shared: &Shared, method: &Method, path: &str, body: &Value) -> Response<Body> {
    let mut world = shared.world();
    match path.split('/').nth(1) {
        None => answer(200, &json!(world.networks.values().collect::<Vec<_>>())),
        Some("create") => {
            let at = world.tick();
            let id = format!("net-{at}");
            let made = json!({"Id": id, "Name": body["Name"], "Created": time(at),
                "Labels": body["Labels"]});
            world.networks.insert(id.clone(), made);
            answer(201, &json!({"Id": id, "Warning": ""}))
        }
        Some(id) => match (world.networks.get(id).cloned(), method) {
            (None, _) => no(&format!("network {id} not found")),
            (Some(_), &Method::DELETE) => {
                world.networks.remove(id);
                answer(204, &Value::Null)
            }
            (Some(network), _) => answer(200, &network),
        },
    }
}

async fn containers(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &HashMap<String, String>,
    body: Value,
) -> Response<Body> {
    // Before the world is locked.
    let server = FakeServer::start(Speaks::Modern).await;
    let mut parts = path.split('/').skip(1);
    let (name, step) = (parts.next().unwrap_or_default(), parts.next());
    let mut world = shared.world();
    if name == "json" {
        let all: Vec<_> = world
            .containers
            .keys()
            .map(|id| world.summary(id))
            .collect();
        return answer(200, &json!(all));
    }
    if name == "create" {
        let named = query["name"].clone();
        if world.find(&named).is_some() {
            return answer(409, &json!({"message": "the name is in use"}));
        }
        let id = format!("id-{}", world.tick());
        let made = Container {
            name: named,
            body,
            status: "created",
            started: 0,
            finished: 0,
            server: None,
        };
        world.containers.insert(id.clone(), made);
        world.happen(&id, "create");
        shared.tell(world.events.len());
        return answer(201, &json!({"Id": id, "Warnings": []}));
    }
    let Some(id) = world.find(name) else {
        return no(&format!("No such container: {name}"));
    };
    let done = match (method, step) {
        (_, Some("json")) => return answer(200, &world.inspected(&id)),
        (_, Some("start")) => {
            let network = world.containers[&id].body["HostConfig"]["NetworkMode"].clone();
            let network = network.as_str().unwrap_or_default();
            if !world.networks.contains_key(network) {
                return no(&format!("network {network} not found"));
            }
            let started = world.tick();
            let one = world.containers.get_mut(&id).expect("found");
            (one.status, one.started, one.server) = ("running", started, Some(server));
            let name = one.name.clone();
            world.starts.push(name);
            world.happen(&id, "start");
            answer(204, &Value::Null)
        }
        (_, Some("stop")) => {
            world.graces.extend(query.get("t").cloned());
            world.end(&id);
            answer(204, &Value::Null)
        }
        (&Method::DELETE, None) => {
            world.remove(&id);
            answer(204, &Value::Null)
        }
        (_, Some("logs")) => Response::new(Body::empty()),
        _ => no("page not found"),
    };
    shared.tell(world.events.len());
    done
}
