//! An upstream that speaks HTTP/2 by hand.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::beside::until;
use crate::case::Step;
use crate::frames::{Peer, SETTINGS, frame};
use crate::wire::Wire;

/// How long a connection may take to begin, which Envoy does with its first request.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    /// What the next connection does; without steps it serves.
    steps: Option<Vec<Step>>,
    mute: bool,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    thread: JoinHandle<Wire>,
    /// Whether the first step is done, which says SETTINGS.
    begun: Arc<AtomicBool>,
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// How many requests have come.
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, counter) = (state.clone(), asked.clone());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = shared.lock().unwrap();
                let (steps, mute) = (state.steps.take(), state.mute);
                let own = stream.try_clone().unwrap();
                let counter = counter.clone();
                let begun = Arc::new(AtomicBool::new(false));
                let begins = begun.clone();
                let thread = std::thread::spawn(move || connection(own, &counter, &begins, steps, mute));
                state.connections.push(Connection { stream, thread, begun });
            }
        });
        Self { address, state, asked }
    }

    /// What the first connection from now on does, and whether none answers PINGs.
    pub(crate) fn expect(&self, steps: Option<Vec<Step>>, mute: bool) {
        let mut state = self.state.lock().unwrap();
        (state.steps, state.mute) = (steps, mute);
        self.asked.store(0, Ordering::SeqCst);
    }

    /// How many connections have come.
    pub(crate) fn connections(&self) -> u64 {
        u64::try_from(self.state.lock().unwrap().connections.len()).unwrap()
    }

    /// Ends all connections, and says what each saw.
    pub(crate) fn finish(&self, whole: bool) -> Vec<String> {
        let connections = std::mem::take(&mut self.state.lock().unwrap().connections);
        let seen = connections.into_iter().map(|Connection { stream, thread, begun }| {
            match until(PATIENCE, || begun.load(Ordering::SeqCst).then_some(())) {
                Some(()) => Wire::finish(&stream),
                None => drop(stream.shutdown(Shutdown::Both)),
            }
            let seen = thread.join().unwrap().told(whole);
            let _ = stream.shutdown(Shutdown::Both);
            seen
        });
        seen.collect()
    }
}

/// A connection to its end, or until it is told to finish.
fn connection(
    stream: TcpStream,
    asked: &Arc<AtomicUsize>,
    begun: &AtomicBool,
    steps: Option<Vec<Step>>,
    mute: bool,
) -> Wire {
    let mut peer = Peer::over(stream);
    let greeted = peer.greeted();
    let mut wire = Wire::new(peer, asked, mute);
    let steps = steps.unwrap_or_else(|| vec![Step::Send(frame(SETTINGS, 0, 0, &[])), Step::Serve]);
    for step in steps.iter().filter(|step| greeted || matches!(step, Step::Close)) {
        wire.run(std::slice::from_ref(step));
        begun.store(true, Ordering::SeqCst);
    }
    wire.drain();
    wire
}
