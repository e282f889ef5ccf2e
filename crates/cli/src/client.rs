//! The REST API's client.

use std::time::Duration;

use api::problem::Problem;
use domain::fault::{Code, Fault, chain};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, Client, Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::settings::{Connection, Resolved};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What one run of a command talks to the controller with.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) settings: Connection,
    pub(crate) json: bool,
}

const PATH_SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name or id as one segment of a path.
pub(crate) fn segment(reference: &str) -> String {
    utf8_percent_encode(reference, PATH_SEGMENT).to_string()
}

/// The query that narrows a list to a site or a host.
pub(crate) fn narrow(site: Option<&str>, host: Option<&str>) -> String {
    let parts: Vec<String> = [("site", site), ("host", host)]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", segment(value?))))
        .collect();
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

impl Session {
    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Makes something, or does something to it.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Changes something.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        self.call(Method::PATCH, path, Some(body)).await
    }

    /// Removes something.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, None::<&()>).await.map(drop)
    }

    /// Removes something that leaves a word behind.
    pub(crate) async fn remove<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Failure> {
        let text = self.send(method, path, body).await?;
        serde_json::from_slice(&text).map_err(|error| {
            Fault::new(
                Code::ApiUnreachable,
                format!("understand the answer to {path}"),
                error.to_string(),
                "Check that the URL is that of a controller of this version.",
            )
            .into()
        })
    }

    /// Sends a request; returns the body of a good answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<Vec<u8>, Failure> {
        let resolved = self.settings.resolve()?;
        let unreachable = |cause: String| -> Failure {
            Fault::new(
                Code::ApiUnreachable,
                format!("reach the controller at {}", resolved.url),
                cause,
                "Check that the controller runs and that the URL and the authority's certificate are its own.",
            )
            .into()
        };
        let request =
            request(&resolved, method, path).map_err(|error| unreachable(chain(&error)))?;
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.map_err(|error| unreachable(chain(&error)))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| unreachable(chain(&error)))?;
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(unreachable(format!("it answers {status}, not as a controller does"))),
        }
    }
}

fn request(
    resolved: &Resolved,
    method: Method,
    path: &str,
) -> Result<RequestBuilder, reqwest::Error> {
    let authority = Certificate::from_pem(resolved.authority.as_bytes())?;
    let client = Client::builder()
        .tls_certs_only([authority])
        .https_only(true)
        .no_proxy()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(ANSWER_LIMIT)
        .build()?;
    let request = client.request(method, format!("{}{}{path}", resolved.url, api::PREFIX));
    Ok(match &resolved.token {
        Some(token) => request.bearer_auth(&token.0),
        None => request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths_and_queries() {
        assert_eq!(segment("east/kvm1"), "east%2Fkvm1");
        assert_eq!(narrow(Some("a b"), None), "?site=a%20b");
        assert_eq!(narrow(Some("east"), Some("east/kvm1")), "?site=east&host=east%2Fkvm1");
        assert_eq!(narrow(None, None), "");
    }
}
