//! Both renderings in the kernel, each in a network namespace of its own: the same connections must end at the same place;
//! applying twice changes nothing; removal leaves nothing. An ordinary user's test is root in a user namespace of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use capture::{Flags, Plan, iptables, nft, plan};

/// What a child of this test is told to do.
const ROLE: &str = "CAPTURE_TEST_ROLE";
const PORTS: [u16; 6] = [80, 8080, 15001, 15006, 15020, 15053];

/// A namespace that is gone with this value.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("capture-{name}-{}", std::process::id());
        ok(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self(name);
        namespace.ip("link set lo up");
        namespace
    }

    fn ip(&self, args: &str) {
        ok(Command::new("ip").args(["-n", &self.0]).args(args.split(' ')));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Runs this very test program in the namespace, as a user, in a role.
    fn child(&self, uid: u32, role: &str) -> Command {
        let mut command = self.command("setpriv");
        command
            .args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ROLE, role);
        command
    }

    fn feed(&self, program: &str, args: &[&str], input: &str) {
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("input is taken");
        assert!(child.wait().expect("it ends").success(), "{program} refused:\n{input}");
    }

    fn print(&self, program: &str, args: &[&str]) -> String {
        String::from_utf8(ok(self.command(program).args(args)).stdout).expect("text")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

fn ok(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs the test as root of the machine or, for an ordinary user, of a user namespace that it starts itself again in.
fn as_root(test: &str, run: impl FnOnce()) {
    for (tool, flag) in [("ip", "-V"), ("iptables", "-V"), ("nft", "-v"), ("setpriv", "-V")] {
        let found = Command::new(tool).arg(flag).output();
        assert!(found.is_ok(), "{tool} is missing: `scripts/need test` installs or names it");
    }
    if ok(Command::new("id").arg("-u")).stdout == b"0\n" {
        return run();
    }
    // Named network namespaces are kept in /run, which belongs to the machine's root.
    let again = "mount -t tmpfs run /run && exec \"$0\" --exact \"$1\" --nocapture";
    ok(Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto", "--mount", "--net", "sh", "-c", again])
        .arg(std::env::current_exe().expect("this program"))
        .arg(test));
}

/// A pod and a peer; the peer answers for every address there is.
struct Rig {
    pod: Namespace,
    peer: Namespace,
    servers: Vec<std::process::Child>,
}

impl Rig {
    fn new(name: &str) -> Self {
        let pod = Namespace::new(&format!("{name}-pod"));
        let peer = Namespace::new(&format!("{name}-peer"));
        pod.ip(&format!("link add eth0 type veth peer name eth0 netns {}", peer.0));
        for (namespace, last) in [(&pod, 1), (&peer, 2)] {
            namespace.ip("link set eth0 up");
            namespace.ip(&format!("addr add 10.77.0.{last}/24 dev eth0"));
            namespace.ip(&format!("addr add fd77::{last}/64 dev eth0 nodad"));
        }
        pod.ip("route add default via 10.77.0.2");
        pod.ip("-6 route add default via fd77::2");
        peer.ip("route add local 10.88.0.0/16 dev lo");
        peer.ip("-6 route add local fd88::/64 dev lo");
        let servers = [(&pod, "pod"), (&peer, "peer")].map(|(namespace, name)| serve(namespace, name));
        Self { pod, peer, servers: servers.into() }
    }

    fn apply_iptables(&self, plan: &Plan) {
        for (tool, rules) in [("iptables", Some(&plan.v4)), ("ip6tables", plan.v6.as_ref())] {
            let save = format!("{tool}-save");
            if let Some(script) = iptables::replace(&self.pod.print(&save, &[]), rules) {
                self.pod.feed(&format!("{tool}-restore"), &["--noflush"], &script);
            }
            let saved = self.pod.print(&save, &[]);
            assert_eq!(iptables::replace(&saved, rules), None, "the second time changes nothing:\n{saved}");
        }
    }

    fn outcomes(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (user, namespace, proto, address) in CASES {
            let namespace = if *namespace == "pod" { &self.pod } else { &self.peer };
            let output = ok(&mut namespace.child(*user, &format!("dial {proto} {address}")));
            let text = String::from_utf8_lossy(&output.stdout);
            let got = text.split("GOT:").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or("?");
            all.push(format!("{user} {proto} {address} -> {got}"));
        }
        all
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// Who (user, namespace), protocol, to where.
const CASES: &[(u32, &str, &str, &str)] = &[
    (1000, "pod", "tcp", "10.88.0.1:80"),
    (1000, "pod", "tcp", "10.88.9.1:80"),
    (1000, "pod", "tcp", "10.88.0.1:8080"),
    (1337, "pod", "tcp", "10.88.0.1:80"),
    (1000, "pod", "tcp", "127.0.0.1:80"),
    (1000, "pod", "tcp", "10.77.0.1:80"),
    (1337, "pod", "tcp", "10.77.0.1:80"),
    (1337, "pod", "tcp", "127.0.0.1:80"),
    (1000, "pod", "tcp", "[fd88::1]:80"),
    (1337, "pod", "tcp", "[fd88::1]:80"),
    (1000, "pod", "tcp", "[::1]:80"),
    (1337, "pod", "tcp", "[fd77::1]:80"),
    (1000, "peer", "tcp", "10.77.0.1:80"),
    (1000, "peer", "tcp", "10.77.0.1:15020"),
    (1000, "peer", "tcp", "[fd77::1]:8080"),
    (1000, "pod", "udp", "10.88.0.1:53"),
    (1000, "pod", "udp", "10.88.9.1:53"),
    (1337, "pod", "udp", "10.88.0.1:53"),
    (1000, "pod", "tcp", "10.88.0.1:53"),
];

fn serve(namespace: &Namespace, name: &str) -> std::process::Child {
    let mut child =
        namespace.child(0, &format!("serve {name}")).stdout(Stdio::piped()).spawn().expect("server starts");
    let stdout = child.stdout.as_mut().expect("stdout");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"READY") {
        assert_eq!(stdout.read(&mut byte).expect("server speaks"), 1, "server ended");
        seen.extend_from_slice(&byte);
    }
    child
}

#[test]
#[ignore = "a role that other tests start as a process of their own"]
#[expect(clippy::disallowed_methods, reason = "the role is handed over so")]
fn child() {
    let role = std::env::var(ROLE).expect("a role");
    let words: Vec<&str> = role.split(' ').collect();
    match words.as_slice() {
        ["serve", name] => listen(name),
        ["dial", proto, address] => println!("GOT:{};", dial(proto, address.parse().expect("address"))),
        _ => panic!("unknown role {role}"),
    }
}

fn listen(name: &str) {
    for port in PORTS {
        let listener = TcpListener::bind(("::", port)).expect("port is free");
        let answer = format!("{name}:{port}");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                drop(stream.write_all(answer.as_bytes()));
            }
        });
    }
    for port in [53, 15053] {
        let socket = UdpSocket::bind(("0.0.0.0", port)).expect("port is free");
        let answer = format!("{name}:{port}");
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                drop(socket.send_to(answer.as_bytes(), from));
            }
        });
    }
    println!("READY");
    loop {
        std::thread::park();
    }
}

fn dial(proto: &str, to: SocketAddr) -> String {
    const LIMIT: Duration = Duration::from_millis(500);
    let mut answer = String::new();
    if proto == "udp" {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.send_to(b"?", to).expect("it is sent");
        let mut buffer = [0; 32];
        return match socket.recv_from(&mut buffer) {
            Ok((length, _)) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
    }
    match TcpStream::connect_timeout(&to, LIMIT) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            stream.read_to_string(&mut answer).map_or_else(|error| format!("{:?}", error.kind()), |_| answer)
        }
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn plan_of(yaml: &str) -> Plan {
    let flags: Flags = serde_norway::from_str(yaml).expect("flags parse");
    plan(&flags.validate().expect("flags are valid"))
}

fn compare(name: &str, yaml: &str, expect: &[&str]) {
    let plan = plan_of(yaml);
    let rig = Rig::new(name);
    let plain = rig.outcomes();

    rig.apply_iptables(&plan);
    let by_iptables = rig.outcomes();
    rig.apply_iptables(&plan_of("{istio-service-cidr: 192.0.2.0/24}"));
    for tool in ["iptables", "ip6tables"] {
        let save = format!("{tool}-save");
        if let Some(script) = iptables::replace(&rig.pod.print(&save, &[]), None) {
            rig.pod.feed(&format!("{tool}-restore"), &["--noflush"], &script);
        }
        assert!(!rig.pod.print(&save, &[]).contains("ISTIO_"), "{tool}: removal is complete");
    }
    assert_eq!(rig.outcomes(), plain, "after removal all is as before");

    rig.pod.feed("nft", &["-f", "-"], &nft::render(&plan));
    let once = rig.pod.print("nft", &["list", "ruleset"]);
    rig.pod.feed("nft", &["-f", "-"], &nft::render(&plan));
    assert_eq!(once, rig.pod.print("nft", &["list", "ruleset"]), "applying twice changes nothing");
    assert_eq!(rig.outcomes(), by_iptables, "nft and iptables lead to the same place");
    rig.pod.feed("nft", &["-f", "-"], &nft::removal());
    assert!(!rig.pod.print("nft", &["list", "tables"]).contains("istio"), "removal is complete");

    for line in expect {
        assert!(by_iptables.iter().any(|outcome| outcome == line), "no {line:?} in {by_iptables:#?}");
    }
}

#[test]
fn redirect_everything() {
    as_root("redirect_everything", || {
        compare(
            "all",
            "{istio-inbound-ports: '*', istio-local-exclude-ports: '15020', istio-service-cidr: '*',
          istio-service-exclude-cidr: 10.88.9.0/24, istio-local-outbound-ports-exclude: '8080', ipv6: true}",
            &[
                "1000 tcp 10.88.0.1:80 -> pod:15001",
                "1000 tcp 10.88.9.1:80 -> peer:80",
                "1000 tcp 10.88.0.1:8080 -> peer:8080",
                "1337 tcp 10.88.0.1:80 -> peer:80",
                "1000 tcp 127.0.0.1:80 -> pod:80",
                "1000 tcp 10.77.0.1:80 -> pod:80",
                "1337 tcp 10.77.0.1:80 -> pod:15006",
                "1000 tcp [fd88::1]:80 -> pod:15001",
                "1337 tcp [fd77::1]:80 -> pod:15006",
            ],
        );
        // A peer's connections are inbound.
        compare(
            "in",
            "{istio-inbound-ports: '80', istio-service-cidr: 10.88.0.0/24, ipv6: true}",
            &["1000 tcp 10.77.0.1:80 -> pod:15006", "1000 tcp 10.77.0.1:15020 -> pod:15020"],
        );
    });
}

#[test]
fn redirect_dns() {
    as_root("redirect_dns", || {
        compare(
            "dns",
            "{istio-inbound-ports: '*', istio-service-cidr: '*', redirect-dns: true, dns-servers: [10.88.0.1], ipv6: true}",
            &[
                "1000 udp 10.88.0.1:53 -> pod:15053",
                "1337 udp 10.88.0.1:53 -> peer:53",
                "1000 tcp 10.88.0.1:53 -> pod:15053",
            ],
        );
        compare(
            "dnsall",
            "{istio-inbound-ports: '*', istio-service-cidr: '*', redirect-dns: true, capture-all-dns: true, ipv6: true}",
            &["1000 udp 10.88.9.1:53 -> pod:15053"],
        );
    });
}
