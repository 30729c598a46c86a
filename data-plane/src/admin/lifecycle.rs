//! `/drain_listeners`, `/healthcheck/{fail,ok}`, `/quitquitquit`.

use std::rc::Rc;

use http::StatusCode;

use super::{Page, Params, text};
use crate::server::{Drain, Main};
use crate::worker::Scope as DrainScope;

pub(super) fn drain_listeners(main: &Rc<Main>, params: &Params) -> Page {
    if params.has("skip_exit") && !params.has("graceful") {
        return text(StatusCode::BAD_REQUEST, "skip_exit requires graceful\n".to_owned());
    }
    let scope = if params.has("inboundonly") { DrainScope::Inbound } else { DrainScope::All };
    let drain = match (params.has("graceful"), params.has("skip_exit")) {
        (false, _) => Drain::Stop(scope),
        (true, false) => Drain::Graceful(scope),
        (true, true) => Drain::Connections(scope),
    };
    main.drain(drain);
    text(StatusCode::OK, "OK\n".to_owned())
}

pub(super) fn health(main: &Main, pass: bool) -> Page {
    main.set_healthy(pass);
    text(StatusCode::OK, "OK\n".to_owned())
}

pub(super) fn quit(main: &Main) -> Page {
    main.quit();
    text(StatusCode::OK, "OK\n".to_owned())
}

pub(super) fn reopen_logs(main: &Main) -> Page {
    if let Some(discovery) = main.discovery.get() {
        discovery.parts().workers().observers().reopen_logs();
    }
    text(StatusCode::OK, "OK\n".to_owned())
}
