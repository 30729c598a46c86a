//! Headers that outlive their request: the few that logs, spans and metrics name, kept by reference count.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Which headers to keep; one per connection manager, known when its configuration is activated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Of the request, as it goes upstream.
    pub request: Vec<HeaderName>,
    /// Of the response, as it goes downstream.
    pub response: Vec<HeaderName>,
    /// Of the response's trailers.
    pub trailers: Vec<HeaderName>,
    /// Whether metadata of configuration are kept.
    pub metadata: bool,
    /// Whether the moment is kept when the response's body begins.
    pub body_begin: bool,
    /// Whether the kernel is asked for the connection's round trip.
    pub round_trip: bool,
    /// Whether every header is kept: expressions may ask for any.
    pub all: bool,
}

impl Capture {
    /// Adds a request header.
    pub fn request(&mut self, name: &str) {
        add(&mut self.request, name);
    }

    /// Adds a response header.
    pub fn response(&mut self, name: &str) {
        add(&mut self.response, name);
    }

    /// Keeps all that there is.
    pub fn everything(&mut self) {
        self.all = true;
        self.metadata = true;
    }

    /// Adds a trailer.
    pub fn trailer(&mut self, name: &str) {
        add(&mut self.trailers, name);
    }
}

fn add(names: &mut Vec<HeaderName>, name: &str) {
    // Pseudo-headers have fields of their own; what is no header's name is never sent, so there is nothing to keep.
    if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        && !names.contains(&name)
    {
        names.push(name);
    }
}

type Values = SmallVec<[Option<HeaderValue>; 4]>;

/// Headers that were kept.
#[derive(Debug, Default)]
pub struct Captured {
    plan: Option<Arc<Capture>>,
    request: Values,
    response: Values,
    trailers: Values,
    /// All headers of the request, of the response, and all trailers, where everything is kept.
    all: Option<Box<[HeaderMap; 3]>>,
}

impl Captured {
    /// Sets what to keep. To be called before the others.
    pub fn plan(&mut self, plan: &Arc<Capture>) {
        self.plan = Some(plan.clone());
    }

    /// Keeps all that there is: the request's route asks for what no plan could know.
    pub fn everything(&mut self) {
        let mut plan = self.plan.as_deref().cloned().unwrap_or_default();
        plan.everything();
        self.plan = Some(Arc::new(plan));
    }

    /// Whether metadata of configuration are kept.
    pub fn wants_metadata(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.metadata)
    }

    /// Whether the moment is kept when the response's body begins.
    pub fn wants_body_begin(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.body_begin)
    }

    /// Keeps the request's headers: after the filters, before the request goes upstream.
    pub fn take_request(&mut self, headers: &HeaderMap) {
        if let Some(plan) = &self.plan {
            take(&mut self.request, &plan.request, headers);
            if plan.all {
                self.all.get_or_insert_default()[0].clone_from(headers);
            }
        }
    }

    /// Keeps the response's headers, as the client will see them.
    pub fn take_response(&mut self, headers: &HeaderMap) {
        if let Some(plan) = &self.plan {
            take(&mut self.response, &plan.response, headers);
            if plan.all {
                self.all.get_or_insert_default()[1].clone_from(headers);
            }
        }
    }

    /// Keeps the response's trailers.
    pub fn take_trailers(&mut self, headers: &HeaderMap) {
        if let Some(plan) = &self.plan {
            take(&mut self.trailers, &plan.trailers, headers);
            if plan.all {
                self.all.get_or_insert_default()[2].clone_from(headers);
            }
        }
    }

    /// A request header.
    pub fn request(&self, name: &str) -> Option<&str> {
        find(&self.request, self.plan.as_ref().map(|plan| &plan.request), name).or_else(|| self.any(0, name))
    }

    /// A response header.
    pub fn response(&self, name: &str) -> Option<&str> {
        find(&self.response, self.plan.as_ref().map(|plan| &plan.response), name)
            .or_else(|| self.any(1, name))
    }

    /// A trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        find(&self.trailers, self.plan.as_ref().map(|plan| &plan.trailers), name)
            .or_else(|| self.any(2, name))
    }

    fn any(&self, which: usize, name: &str) -> Option<&str> {
        std::str::from_utf8(self.all.as_ref()?.get(which)?.get(name)?.as_bytes()).ok()
    }
}

fn take(values: &mut Values, plan: &[HeaderName], headers: &HeaderMap) {
    values.clear();
    values.extend(plan.iter().map(|name| {
        let mut lines = headers.get_all(name).iter();
        let first = lines.next()?;
        if lines.next().is_none() && std::str::from_utf8(first.as_bytes()).is_ok() {
            return Some(first.clone());
        }
        // What Envoy keeps as several lines, operators read the first of; what is no text is shown as well as it can be.
        let told = sail_proxy_decide::head::told(headers, name)?;
        HeaderValue::from_bytes(String::from_utf8_lossy(&told).as_bytes()).ok()
    }));
}

fn find<'a>(values: &'a Values, plan: Option<&Vec<HeaderName>>, name: &str) -> Option<&'a str> {
    let place = plan?.iter().position(|known| known.as_str().eq_ignore_ascii_case(name))?;
    std::str::from_utf8(values.get(place)?.as_ref()?.as_bytes()).ok()
}
