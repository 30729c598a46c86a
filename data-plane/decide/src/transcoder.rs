//! JSON requests as gRPC calls, and their answers as JSON: which method a request means, and how messages are written.

mod message;
mod split;
mod status;
mod template;
mod unknown;

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};

pub use message::{Raw, Unfit};
pub use split::Elements;
pub use template::{Template, Unescape};

/// The message that stands for a body as it is.
const HTTP_BODY: &str = "google.api.HttpBody";

/// `PrintOptions`
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are Envoy's")]
pub struct Print {
    /// Over several lines.
    pub add_whitespace: bool,
    /// Fields of default values, too.
    pub always_print_primitive_fields: bool,
    /// Enums by number.
    pub always_print_enums_as_ints: bool,
    /// Names as in the `.proto` file.
    pub preserve_proto_field_names: bool,
    /// How messages of a stream are told apart.
    pub stream: Framing,
}

/// How messages of a stream are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// They are the elements of an array.
    #[default]
    Array,
    /// Each has a line.
    Lines,
    /// As server-sent events.
    Events,
}

/// What is taken of queries and bodies.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they are Envoy's")]
pub struct Input {
    /// Query parameters that are passed over.
    pub ignored: Vec<String>,
    /// All that are not known are passed over.
    pub ignore_unknown: bool,
    /// All that are not known are told in the body's message, where that is a body as it is.
    pub capture_unknown: bool,
    /// `+` means a space in queries.
    pub unescape_plus: bool,
    /// Enums may be written in lower case.
    pub case_insensitive_enums: bool,
    /// A field that path and body give different values is an error.
    pub reject_collisions: bool,
    /// How paths are unescaped.
    pub unescape: Unescape,
    /// `:verb` is one even if no method has it.
    pub unregistered_verbs: bool,
}

/// A method that is reached over HTTP.
#[derive(Debug)]
struct Binding {
    verb: http::Method,
    template: Template,
    method: usize,
    /// The field that the body is, `*` for the message itself; empty: there is no body.
    body: String,
    response_body: String,
}

/// A service's methods, and the requests that mean them.
#[derive(Debug)]
pub struct Transcoder {
    pool: DescriptorPool,
    methods: Vec<MethodDescriptor>,
    bindings: Vec<Binding>,
    print: Print,
    input: Input,
}

/// What a request means.
#[derive(Debug)]
pub struct Call {
    transcoder: Arc<Transcoder>,
    binding: usize,
    /// Fields that path and query give.
    fields: Vec<(Vec<String>, String)>,
    /// Query parameters that are no fields.
    unknown: BTreeMap<String, Vec<String>>,
}

/// Why a request means no method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCall {
    /// There is no such path, or not with this HTTP method.
    UnknownMethod,
    /// A query parameter is no field.
    UnknownQueryParameter(String),
}

impl Transcoder {
    /// From an encoded `FileDescriptorSet`. `auto` binds methods without annotation to their gRPC paths.
    pub fn new(
        descriptors: &[u8],
        services: &[String],
        auto: bool,
        print: Print,
        input: Input,
    ) -> Result<Self, String> {
        let mut pool = DescriptorPool::decode(descriptors)
            .map_err(|error| format!("the descriptor set cannot be read: {error}"))?;
        status::add(&mut pool);
        let annotation = pool.get_extension_by_name("google.api.http");
        let mut new = Self { pool, methods: Vec::new(), bindings: Vec::new(), print, input };
        for name in services {
            let service = new
                .pool
                .get_service_by_name(name)
                .ok_or_else(|| format!("the descriptor set has no service {name:?}"))?;
            for method in service.methods() {
                let index = new.methods.len();
                let options = method.options();
                let rule = annotation.as_ref().filter(|annotation| options.has_extension(annotation));
                let path = format!("/{}/{}", service.full_name(), method.name());
                new.methods.push(method);
                match rule.map(|annotation| options.get_extension(annotation).into_owned()) {
                    Some(Value::Message(rule)) => new.bind(index, &rule)?,
                    _ if auto => new.add(index, http::Method::POST, &path, "*".into(), String::new())?,
                    _ => {}
                }
            }
        }
        Ok(new)
    }

    fn bind(&mut self, method: usize, rule: &DynamicMessage) -> Result<(), String> {
        let text = |name: &str| match rule.get_field_by_name(name).as_deref() {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let known = [
            ("get", http::Method::GET),
            ("put", http::Method::PUT),
            ("post", http::Method::POST),
            ("delete", http::Method::DELETE),
            ("patch", http::Method::PATCH),
        ];
        let mut pattern = known
            .into_iter()
            .find(|(name, _)| rule.has_field_by_name(name))
            .map(|(name, verb)| (verb, text(name)));
        if let Some(Value::Message(custom)) = rule.get_field_by_name("custom").as_deref()
            && rule.has_field_by_name("custom")
        {
            let of = |name: &str| {
                custom.get_field_by_name(name).and_then(|value| Some(value.as_str()?.to_owned()))
            };
            let verb = of("kind").unwrap_or_default();
            let verb = http::Method::from_bytes(verb.as_bytes())
                .map_err(|_| format!("{verb:?} is no HTTP method"))?;
            pattern = Some((verb, of("path").unwrap_or_default()));
        }
        if let Some((verb, path)) = pattern {
            self.add(method, verb, &path, text("body"), text("response_body"))?;
        }
        if let Some(Value::List(more)) = rule.get_field_by_name("additional_bindings").as_deref() {
            for rule in more.iter().filter_map(Value::as_message) {
                self.bind(method, rule)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        method: usize,
        verb: http::Method,
        path: &str,
        body: String,
        response_body: String,
    ) -> Result<(), String> {
        let template = Template::parse(path)?;
        let of = &self.methods[method];
        for field in template.fields().chain((!body.is_empty() && body != "*").then_some(&*body)) {
            message::field_path(&of.input(), field).ok_or_else(|| {
                format!("{}: {} has no field {field:?}", of.full_name(), of.input().full_name())
            })?;
        }
        if !response_body.is_empty() && message::field(&of.output(), &response_body).is_none() {
            return Err(format!(
                "{}: {} has no field {response_body:?}",
                of.full_name(),
                of.output().full_name()
            ));
        }
        self.bindings.push(Binding { verb, template, method, body, response_body });
        Ok(())
    }

    /// Whether there is nothing to transcode.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    /// The method that a request means.
    pub fn find(self: &Arc<Self>, method: &http::Method, path: &str) -> Result<Call, NoCall> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let (index, variables) = self.binding(method, path).ok_or(NoCall::UnknownMethod)?;
        let mut fields: Vec<_> = variables.into_iter().map(|(name, value)| (names(name), value)).collect();
        let mut unknown = BTreeMap::<String, Vec<String>>::new();
        let input = self.methods[self.bindings[index].method].input();
        for pair in query.split('&') {
            // As in Envoy, what has no name or no sign of a value is none.
            let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                continue;
            };
            let name = self.unescaped(name);
            if self.input.ignored.contains(&name) {
                continue;
            }
            let known = message::field_path(&input, &name)
                .is_some_and(|path| path.last().is_some_and(message::is_settable));
            if known {
                fields.push((names(&name), self.unescaped(value)));
            } else if self.input.ignore_unknown {
                continue;
            } else if self.input.capture_unknown {
                unknown.entry(name).or_default().push(self.unescaped(value));
            } else {
                return Err(NoCall::UnknownQueryParameter(name));
            }
        }
        Ok(Call { transcoder: Arc::clone(self), binding: index, fields, unknown })
    }

    fn binding(&self, method: &http::Method, path: &str) -> Option<(usize, Vec<(&str, String)>)> {
        let of = |path: &str, verb: Option<&str>| {
            let parts: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
            let found =
                self.bindings.iter().enumerate().filter(|(_, binding)| {
                    binding.verb == *method && binding.template.verb.as_deref() == verb
                });
            let found = found.filter_map(|(index, binding)| {
                Some((index, binding.template.matches(&parts, self.input.unescape)?))
            });
            found.min_by(|(a, _), (b, _)| self.bindings[*a].template.compare(&self.bindings[*b].template))
        };
        let last = path.rfind('/').map_or(0, |at| at + 1);
        if let Some((_, verb)) = path[last..].rsplit_once(':') {
            let registered =
                self.bindings.iter().any(|binding| binding.template.verb.as_deref() == Some(verb));
            if registered || self.input.unregistered_verbs {
                return of(&path[..path.len() - verb.len() - 1], Some(verb));
            }
        }
        of(path, None)
    }

    fn unescaped(&self, text: &str) -> String {
        let text = if self.input.unescape_plus { text.replace('+', " ") } else { text.to_owned() };
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    }
}

fn names(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

impl Call {
    fn binding(&self) -> &Binding {
        &self.transcoder.bindings[self.binding]
    }

    fn method(&self) -> &MethodDescriptor {
        &self.transcoder.methods[self.binding().method]
    }

    /// A failure's `google.rpc.Status` in JSON: the encoded one, if it can be read. `None`: it has no form in JSON, since
    /// nobody knows of what type its details are.
    pub fn status_json(&self, encoded: Option<&[u8]>, code: u32, text: &str) -> Option<String> {
        let status = status::message(&self.transcoder.pool, encoded, code, text)?;
        message::write(&status, &self.transcoder.print, "").ok()
    }

    /// `/package.Service/Method`
    pub fn path(&self) -> String {
        let method = self.method();
        format!("/{}/{}", method.parent_service().full_name(), method.name())
    }

    /// Whether the request is a stream.
    pub fn client_streams(&self) -> bool {
        self.method().is_client_streaming()
    }

    /// Whether the response is a stream.
    pub fn server_streams(&self) -> bool {
        self.method().is_server_streaming()
    }

    /// Whether the request's body is read.
    pub fn has_body(&self) -> bool {
        !self.binding().body.is_empty()
    }

    /// Whether the request's body goes into the message as it is.
    pub fn takes_raw(&self) -> bool {
        self.body_type().is_some_and(|message| message.full_name() == HTTP_BODY)
    }

    fn body_type(&self) -> Option<MessageDescriptor> {
        let input = self.method().input();
        match &*self.binding().body {
            "" => None,
            "*" => Some(input),
            path => message::field_path(&input, path)?.last()?.kind().as_message().cloned(),
        }
    }

    /// The request's message, encoded, from its body.
    pub fn request(&self, body: &[u8], content_type: &str, first: bool) -> Result<Vec<u8>, Unfit> {
        let input = self.method().input();
        let options = &self.transcoder.input;
        let mut out = Vec::new();
        let given = if !self.has_body() || (body.is_empty() && !self.takes_raw()) {
            None
        } else if self.takes_raw() {
            let extensions = unknown::extensions(&self.unknown);
            Some(message::raw(&input, &self.binding().body, (body, content_type), extensions)?)
        } else {
            Some(message::read(&input, &self.binding().body, body, options)?)
        };
        if first {
            let bound = message::bound(&input, &self.fields, options)?;
            if options.reject_collisions
                && let Some(given) = &given
            {
                message::check_collisions(given, &bound, &self.fields)?;
            }
            // What comes later wins, and lists are joined.
            out = message::encoded(&bound);
        }
        if let Some(given) = given {
            out.extend(message::encoded(&given));
        }
        Ok(out)
    }

    /// A response's message in JSON, with its line's end where the output is for people.
    pub fn response(&self, bytes: &[u8]) -> Result<String, Unfit> {
        let message = DynamicMessage::decode(self.method().output(), bytes).map_err(Unfit::response)?;
        message::write(&message, &self.transcoder.print, &self.binding().response_body)
    }

    /// Whether responses are bodies as they are.
    pub fn gives_raw(&self) -> bool {
        let output = self.method().output();
        let output = match &*self.binding().response_body {
            "" => Some(output),
            field => message::field(&output, field).and_then(|field| field.kind().as_message().cloned()),
        };
        output.is_some_and(|message| message.full_name() == HTTP_BODY)
    }

    /// A response that is a body as it is.
    pub fn raw_response(&self, bytes: &[u8]) -> Result<Raw, Unfit> {
        let message = DynamicMessage::decode(self.method().output(), bytes).map_err(Unfit::response)?;
        Ok(message::raw_of(&message, &self.binding().response_body))
    }

    /// How messages of the response are told apart.
    pub fn framing(&self) -> Framing {
        self.transcoder.print.stream
    }
}

#[cfg(test)]
mod tests;
