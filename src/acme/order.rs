//! One order, from the account to the certificate.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeHandle, ChallengeType, HttpClient, Identifier,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::config::{Acme, Challenge};

use super::shelf::Kept;
use super::{Answers, Managed};

/// How long one request to the authority may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the authority may take to look at our answers, and to issue.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest answer of an authority, bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The authority refused, or was not reached.
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// It would not believe that a name is ours.
    #[error("the authority did not see our answer for {0}")]
    NotOurs(String),
    /// It does not ask in the way that is configured.
    #[error("the authority offers no such challenge for {0}")]
    NoChallenge(String),
    /// The client for it.
    #[error("the client for the authority: {0}")]
    Client(#[source] reqwest::Error),
    /// A key or a request for a certificate.
    #[error("a certificate request cannot be made: {0}")]
    Request(#[from] rcgen::Error),
    /// What was issued cannot be used.
    #[error("the answer for a handshake cannot be made: {0}")]
    Tls(#[from] rustls::Error),
    /// The disk.
    #[error("account or certificate: {0}")]
    Shelf(#[from] io::Error),
}

/// Orders a certificate and keeps it.
pub(super) async fn order(managed: &Managed) -> Result<Kept, Error> {
    // Whatever happens, nobody is answered any more afterwards.
    let _answers = Cleared(managed);
    let section = &managed.section;
    let account = account(managed).await?;
    let names: Vec<Identifier> = section.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // Shown lately, for another order.
            AuthorizationStatus::Valid => continue,
            _ => return Err(Error::NotOurs(name)),
        }
        let kind = match section.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        };
        let Some(mut challenge) = authorization.challenge(kind) else { return Err(Error::NoChallenge(name)) };
        prepare(managed, &name, &challenge)?;
        challenge.set_ready().await?;
    }
    let patience = RetryPolicy::new().timeout(PATIENCE);
    if order.poll_ready(&patience).await? != OrderStatus::Ready {
        return Err(Error::NotOurs(section.domains.join(", ")));
    }
    // A new key each time: one that was stolen is worth nothing after the next renewal.
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(section.domains.clone())?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&patience).await?;
    Ok(managed.shelf.keep_certificate(&chain, &key.serialize_pem())?)
}

/// The account in use, or a new one.
async fn account(managed: &Managed) -> Result<Account, Error> {
    let section = &managed.section;
    let builder = || Ok::<_, Error>(Account::builder_with_http(Box::new(Client::new(section)?)));
    if let Some(known) = managed.shelf.account()? {
        return Ok(builder()?.from_credentials(known).await?);
    }
    let contact = section.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder()?.create(&new, section.directory.clone(), None).await?;
    managed.shelf.keep_account(&credentials)?;
    Ok(account)
}

/// Makes the answer ready for which the authority will ask.
fn prepare(managed: &Managed, name: &str, challenge: &ChallengeHandle<'_>) -> Result<(), Error> {
    let authorization = challenge.key_authorization();
    match managed.section.challenge {
        Challenge::Http01 => {
            let (token, content) = (challenge.token.clone(), authorization.as_str().to_owned());
            managed.answer(|answers| {
                answers.files.insert(token, content);
            });
        }
        Challenge::TlsAlpn01 => {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![name.to_owned()])?;
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(authorization.digest().as_ref())];
            let certificate = params.self_signed(&key)?;
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            // Not held against its key: rustls does not read a certificate with this critical extension.
            let key = default_provider().key_provider.load_private_key(key)?;
            let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
            managed.answer(|answers| {
                answers.certificates.insert(name.to_ascii_lowercase(), Arc::new(certified));
            });
        }
    }
    Ok(())
}

/// Takes all answers back.
struct Cleared<'a>(&'a Managed);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.answer(|answers| *answers = Answers::default());
    }
}

/// How the authority is reached.
struct Client(reqwest::Client);

impl Client {
    fn new(section: &Acme) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("wxgate/", env!("CARGO_PKG_VERSION")));
        if let Some(authorities) = &section.ca {
            let roots: Result<Vec<_>, _> = authorities.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
            builder = builder.tls_certs_only(roots.map_err(Error::Client)?);
        }
        builder.build().map(Self).map_err(Error::Client)
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> instant_acme::Error {
    instant_acme::Error::Other(error.into())
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(other)?.to_bytes();
            let sending = client.request(head.method, head.uri.to_string()).headers(head.headers).body(body);
            let mut answer = sending.send().await.map_err(other)?;
            let mut response = http::Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                *headers = answer.headers().clone();
            }
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(other)? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_ANSWER {
                    return Err(other("an answer of more than 1 MiB"));
                }
            }
            Ok(BytesResponse::from(response.body(Full::new(Bytes::from(body)))?))
        })
    }
}
