//! The upstream of both proxies: the path says what it does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Starts one; it ends with the test's process.
pub fn start() -> u16 {
    // Any loopback address is a host of its own.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away ends its connection.
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    port
}

struct Request {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" if head.is_empty() => {}
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut request = Self { head, body: Vec::new() };
        if let Some(length) = request.header("content-length") {
            let mut body = vec![0; length.parse().unwrap_or(0)];
            reader.read_exact(&mut body)?;
            request.body = body;
        } else if request.header("transfer-encoding").is_some() {
            request.body = read_chunks(reader)?;
        }
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().skip(1).find_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn path(&self) -> &str {
        self.head[0].split(' ').nth(1).unwrap_or_default()
    }

    /// The request itself: its head, and its body.
    fn echo(&self) -> Vec<u8> {
        let mut text = self.head.join("\n").into_bytes();
        text.extend(b"\n\n");
        text.extend(&self.body);
        text
    }
}

fn read_chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        let mut chunk = vec![0; size];
        reader.read_exact(&mut chunk)?;
        body.extend(chunk);
        let mut end = String::new();
        reader.read_line(&mut end)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn respond(stream: &mut TcpStream, line: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {line}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// `/tries/503/300-200/close`: what each try of a request gets, after so many milliseconds; whether to go on.
fn try_one(stream: &mut TcpStream, request: &Request, wanted: &str) -> std::io::Result<bool> {
    let number: usize =
        request.header("x-envoy-attempt-count").and_then(|count| count.parse().ok()).unwrap_or(1);
    let step = request.path().split(['/', '?']).nth(number + 1).unwrap_or("200");
    let (wait, what) = step.split_once('-').unwrap_or(("0", step));
    std::thread::sleep(Duration::from_millis(wait.parse().unwrap_or(0)));
    if what == "close" {
        return Ok(false);
    }
    let (wanted, status) = match what.strip_suffix('!') {
        Some(status) => (wanted, status),
        None => ("", what),
    };
    let body = format!("try {number} at {}", stream.local_addr()?.ip());
    respond(stream, &format!("{status} Whatever"), wanted, body.as_bytes())?;
    Ok(true)
}

/// Where a request wants one.
pub const PAUSE: Duration = Duration::from_millis(50);

/// Says what a request wants to hear: `|` is a line's end, `%0a` a byte, `<a*9>` many of one, and `@` a pause.
fn say(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    for (at, part) in text.split('@').enumerate() {
        if at > 0 {
            std::thread::sleep(PAUSE);
        }
        let mut bytes = Vec::new();
        let mut rest = part;
        while let Some(first) = rest.chars().next() {
            let many = rest.strip_prefix('<').and_then(|rest| rest.split_once('>'));
            if let Some((one, count)) = many.and_then(|(what, _)| what.split_once('*')) {
                bytes.extend(one.replace('|', "\r\n").repeat(count.parse().unwrap()).into_bytes());
                rest = &rest[one.len() + count.len() + 3..];
                continue;
            }
            rest = &rest[first.len_utf8()..];
            match first {
                '|' => bytes.extend(b"\r\n"),
                '%' => {
                    bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                    rest = &rest[2..];
                }
                other => bytes.extend(other.to_string().bytes()),
            }
        }
        stream.write_all(&bytes)?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = Request::read(&mut reader)? {
        // The scripts of these tests name a header for the response in one of the request.
        let wanted = request.header("x-want").map(|line| format!("{line}\r\n")).unwrap_or_default();
        let mut parts = request.path().trim_start_matches('/').split(['/', '?']);
        match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
            ("say", _) => {
                say(&mut stream, request.header("x-say").unwrap_or_default())?;
                if request.header("x-then") == Some("close") {
                    return Ok(());
                }
            }
            ("status", status) => respond(&mut stream, &format!("{status} Whatever"), &wanted, b"status")?,
            ("tries", _) => {
                if !try_one(&mut stream, &request, &wanted)? {
                    return Ok(());
                }
            }
            ("close", _) => return Ok(()),
            ("garbage", _) => stream.write_all(b"nonsense\r\n\r\n")?,
            ("badheader", _) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 0\r\n\r\n")?;
            }
            ("delay", millis) => {
                std::thread::sleep(Duration::from_millis(millis.parse().unwrap_or(0)));
                respond(&mut stream, "200 OK", "", b"late")?;
            }
            ("slowbody", _) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")?;
                std::thread::sleep(Duration::from_secs(1));
                stream.write_all(b"world")?;
            }
            ("short", _) => return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
            ("shortchunk", _) => {
                return stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc");
            }
            ("last", _) => {
                return respond(&mut stream, "200 OK", "connection: close\r\n", b"last");
            }
            ("ws", how @ ("open" | "end")) => {
                stream.write_all(b"HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")?;
                if how == "end" {
                    return stream.write_all(b"so long");
                }
                stream.write_all(b"hello")?;
                // To the client's end.
                while stream.read(&mut [0; 64])? > 0 {}
                return Ok(());
            }
            ("ws", status) => respond(&mut stream, &format!("{status} Whatever"), "", b"no")?,
            ("chunked", _) => stream.write_all(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
            )?,
            ("eof", _) => return stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"),
            ("old", _) => return stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            ("hints", _) => stream.write_all(
                b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            )?,
            ("headers", _) => stream.write_all(
                b"HTTP/1.1 200 Fine\r\nServer: mine\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nX-Multi: a\r\n\
                  Keep-Alive: timeout=5\r\nX-Multi: b\r\nVia: 1.1 back\r\nProxy-Connection: keep-alive\r\n\
                  Set-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
            )?,
            ("big", _) => respond(&mut stream, "200 OK", "content-type: text/html\r\n", &[b'a'; 20_000])?,
            _ if request.head[0].starts_with("HEAD") => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")?;
            }
            _ => respond(&mut stream, "200 OK", &wanted, &request.echo())?,
        }
    }
    Ok(())
}
