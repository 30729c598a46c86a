//! One gRPC call: `grpc://HOST:PORT/say`, or `/talk` for a stream of three messages.

use std::collections::BTreeMap;

use anyhow::bail;
use futures_util::StreamExt;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::{Request, Status};

use super::{Options, Outcome, header};
use crate::proto::echo_client::EchoClient;
use crate::proto::{Answer, Message};

pub(super) async fn call(options: &Options, rest: &str) -> anyhow::Result<Outcome> {
    let (authority, method) = rest.split_once('/').unwrap_or((rest, "say"));
    let mut client = EchoClient::connect(format!("http://{authority}")).await?;
    let message = Message { text: options.data.clone(), fail_with: 0 };
    let answered = match method {
        "say" => {
            client.say(request(message, &options.headers)?).await.map(|answer| vec![answer.into_inner()])
        }
        "talk" => {
            let messages = tokio_stream::iter(vec![message; 3]);
            match client.talk(request(messages, &options.headers)?).await {
                Ok(answers) => answers.into_inner().collect::<Vec<_>>().await.into_iter().collect(),
                Err(status) => Err(status),
            }
        }
        other => bail!("there is no method {other:?}; there are say and talk"),
    };
    Ok(outcome(answered))
}

fn request<T>(message: T, options: &[String]) -> anyhow::Result<Request<T>> {
    let mut metadata = MetadataMap::new();
    for option in options {
        let (name, value) = header(option)?;
        metadata.insert(name.to_ascii_lowercase().parse::<MetadataKey<_>>()?, value.parse()?);
    }
    Ok(Request::from_parts(metadata, Default::default(), message))
}

fn outcome(answered: Result<Vec<Answer>, Status>) -> Outcome {
    match answered {
        Ok(answers) => {
            let texts: Vec<_> = answers.iter().map(|answer| answer.text.clone()).collect();
            let last = answers.into_iter().next_back().unwrap_or_default();
            let headers = last.headers.into_iter().collect();
            Outcome { status: "ok".to_owned(), version: Some(last.version), body: texts.join("\n"), headers }
        }
        Err(status) => {
            let (code, body) = (format!("{:?}", status.code()), status.message().to_owned());
            Outcome { status: code, version: None, body, headers: BTreeMap::new() }
        }
    }
}
