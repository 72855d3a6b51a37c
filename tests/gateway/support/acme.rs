//! An authority that speaks ACME (RFC 8555) as a real one does: nonces that are good once, signed requests, challenges that
//! it looks at itself (RFC 8555, section 8.3; RFC 8737), certificates for what a request for them says.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rcgen::CertificateSigningRequestParams;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::authority::{Authority, connect};
use super::raw;

/// Where the names lead: to the TLS listener, and to the one on plain HTTP.
pub(crate) type Dns = (SocketAddr, Option<SocketAddr>);

/// A running authority.
#[derive(Debug)]
pub(crate) struct AcmeServer {
    pub(crate) directory: String,
    /// Signs what it issues.
    pub(crate) issued_by: Arc<Authority>,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    base: String,
    issued_by: Arc<Authority>,
    dns: watch::Sender<Option<Dns>>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nonces: HashSet<String>,
    issued_nonces: usize,
    /// Coordinates of keys, by account URL.
    accounts: HashMap<String, (String, String)>,
    orders: Vec<Order>,
    /// Whether certificates are near their end when they are issued.
    stale: bool,
}

#[derive(Debug, Clone)]
struct Order {
    names: Vec<String>,
    status: Vec<&'static str>,
    certificate: Option<String>,
}

impl Order {
    fn status(&self) -> &'static str {
        match () {
            () if self.certificate.is_some() => "valid",
            () if self.status.contains(&"invalid") => "invalid",
            () if self.status.iter().all(|one| *one == "valid") => "ready",
            () => "pending",
        }
    }
}

/// A refusal: status, and the error's name.
type Refused = (u16, &'static str);

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unb64(text: &Value) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_str()?).ok()
}

impl AcmeServer {
    /// Starts one; writes the certificate that its clients must trust to `acme-ca.pem` in `folder`.
    pub(crate) async fn start(folder: &Path) -> Self {
        let own = Authority::new();
        own.issue(folder, "localhost");
        std::fs::write(folder.join("acme-ca.pem"), &own.pem).unwrap();
        let chain = CertificateDer::from_pem_file(folder.join("localhost.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("localhost.key")).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![chain], key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let issued_by = Arc::new(Authority::new());
        let (dns, _) = watch::channel(None);
        let state =
            Arc::new(State { base: base.clone(), issued_by: Arc::clone(&issued_by), dns, inner: Mutex::default() });
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, state) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { Ok::<_, Infallible>(state.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { directory: format!("{base}/directory"), issued_by, state, _tasks: tasks }
    }

    /// Where the names lead from now on. Until it is told, it looks at no challenge.
    pub(crate) fn names_lead_to(&self, dns: Dns) {
        self.state.dns.send_replace(Some(dns));
    }

    /// From now on certificates are near their end when they are issued, or not.
    pub(crate) fn issue_stale(&self, stale: bool) {
        self.state.inner.lock().unwrap().stale = stale;
    }

    /// How many accounts and orders there have been.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.state.inner.lock().unwrap();
        (inner.accounts.len(), inner.orders.len())
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let answered = match (&head.method, path.as_str()) {
            (&Method::GET, "/directory") => {
                let url = |name: &str| format!("{}/{name}", self.base);
                Ok((
                    200,
                    None,
                    json!({ "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
                    "revokeCert": url("revoke"), "keyChange": url("key") })
                    .to_string(),
                ))
            }
            (&Method::HEAD, "/nonce") => Ok((200, None, String::new())),
            (&Method::POST, _) => {
                let body = body.collect().await.unwrap().to_bytes();
                match self.verified(&path, &body) {
                    Ok((account, payload)) => self.act(&path, account, &payload).await,
                    Err(refused) => Err(refused),
                }
            }
            _ => Err((404, "malformed")),
        };
        let nonce = {
            let mut inner = self.inner.lock().unwrap();
            inner.issued_nonces += 1;
            let nonce = b64(format!("nonce-{}", inner.issued_nonces));
            inner.nonces.insert(nonce.clone());
            nonce
        };
        let response = Response::builder().header("replay-nonce", nonce);
        match answered {
            Ok((status, location, body)) => {
                let response = match location {
                    Some(location) => response.header("location", location),
                    None => response,
                };
                response.status(status).header("content-type", "application/json").body(Full::from(body)).unwrap()
            }
            Err((status, error)) => {
                let problem =
                    json!({ "type": format!("urn:ietf:params:acme:error:{error}"), "detail": error, "status": status });
                response
                    .status(StatusCode::from_u16(status).unwrap())
                    .header("content-type", "application/problem+json")
                    .body(Full::from(problem.to_string()))
                    .unwrap()
            }
        }
    }

    /// The account that signed a request, and what it says (RFC 8555, section 6). A new account is known by its key alone.
    fn verified(&self, path: &str, body: &[u8]) -> Result<(String, Value), Refused> {
        let malformed = || (400, "malformed");
        let jws: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
        let header: Value =
            serde_json::from_slice(&unb64(&jws["protected"]).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let mut inner = self.inner.lock().unwrap();
        if !inner.nonces.remove(header["nonce"].as_str().unwrap_or_default()) {
            return Err((400, "badNonce"));
        }
        if header["url"] != format!("{}{path}", self.base) || header["alg"] != "ES256" {
            return Err((401, "unauthorized"));
        }
        let (account, (x, y)) = match header["kid"].as_str() {
            Some(kid) => (kid.to_owned(), inner.accounts.get(kid).cloned().ok_or((400, "accountDoesNotExist"))?),
            None if path == "/account" => {
                let coordinate = |name: &str| header["jwk"][name].as_str().unwrap_or_default().to_owned();
                (format!("{}/account/{}", self.base, coordinate("x")), (coordinate("x"), coordinate("y")))
            }
            None => return Err(malformed()),
        };
        let key = [vec![4], unb64(&json!(x)).ok_or_else(malformed)?, unb64(&json!(y)).ok_or_else(malformed)?].concat();
        let signed = format!(
            "{}.{}",
            jws["protected"].as_str().unwrap_or_default(),
            jws["payload"].as_str().unwrap_or_default()
        );
        let signature = unb64(&jws["signature"]).ok_or_else(malformed)?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
        key.verify(signed.as_bytes(), &signature).map_err(|_| (401, "unauthorized"))?;
        if path == "/account" {
            inner.accounts.insert(account.clone(), (x, y));
        }
        let payload = unb64(&jws["payload"]).ok_or_else(malformed)?;
        Ok((account, serde_json::from_slice(&payload).unwrap_or(Value::Null)))
    }

    async fn act(&self, path: &str, account: String, said: &Value) -> Result<(u16, Option<String>, String), Refused> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let number = |at: usize| parts.get(at).and_then(|n| n.parse::<usize>().ok()).ok_or((404, "malformed"));
        match parts[0] {
            "account" if said["termsOfServiceAgreed"] != true => Err((403, "userActionRequired")),
            "account" => Ok((201, Some(account), json!({ "status": "valid" }).to_string())),
            "order" if parts.len() == 1 => {
                let names: Vec<String> = said["identifiers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|one| one["value"].as_str().map(str::to_owned))
                    .collect();
                let status = vec!["pending"; names.len()];
                let n = {
                    let mut inner = self.inner.lock().unwrap();
                    inner.orders.push(Order { names, status, certificate: None });
                    inner.orders.len() - 1
                };
                Ok((201, Some(format!("{}/order/{n}", self.base)), self.order(n)?))
            }
            "order" => Ok((200, None, self.order(number(1)?)?)),
            "authorization" => Ok((200, None, self.authorization(number(1)?, number(2)?)?.to_string())),
            "challenge" => {
                let (n, name) = (number(1)?, number(2)?);
                let order = self.known(n)?;
                let authorization = format!("{}.{}", token(n, name), self.thumbprint(&account));
                let seen = self
                    .looks(parts[3], order.names.get(name).ok_or((404, "malformed"))?, &token(n, name), &authorization)
                    .await;
                self.inner.lock().unwrap().orders[n].status[name] = if seen { "valid" } else { "invalid" };
                let authorization = self.authorization(n, name)?;
                let list = authorization["challenges"].as_array().unwrap();
                Ok((200, None, list.iter().find(|one| one["type"] == parts[3]).unwrap().to_string()))
            }
            "finalize" => {
                let n = number(1)?;
                let order = self.known(n)?;
                if order.status() != "ready" {
                    return Err((403, "orderNotReady"));
                }
                let csr = unb64(&said["csr"]).ok_or((400, "badCSR"))?;
                let pem = self.issue(&csr, &order.names)?;
                self.inner.lock().unwrap().orders[n].certificate = Some(pem);
                Ok((200, None, self.order(n)?))
            }
            "certificate" => Ok((200, None, self.known(number(1)?)?.certificate.ok_or((404, "malformed"))?)),
            _ => Err((404, "malformed")),
        }
    }

    fn known(&self, n: usize) -> Result<Order, Refused> {
        self.inner.lock().unwrap().orders.get(n).cloned().ok_or((404, "malformed"))
    }

    fn order(&self, n: usize) -> Result<String, Refused> {
        let order = self.known(n)?;
        let authorizations: Vec<String> =
            (0..order.names.len()).map(|name| format!("{}/authorization/{n}/{name}", self.base)).collect();
        let names: Vec<Value> = order.names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
        let mut text = json!({ "status": order.status(), "identifiers": names, "authorizations": authorizations,
            "finalize": format!("{}/finalize/{n}", self.base) });
        if order.certificate.is_some() {
            text["certificate"] = json!(format!("{}/certificate/{n}", self.base));
        }
        Ok(text.to_string())
    }

    fn authorization(&self, n: usize, name: usize) -> Result<Value, Refused> {
        let order = self.known(n)?;
        let status = order.status[name];
        let challenge = |kind: &str| {
            json!({ "type": kind, "url": format!("{}/challenge/{n}/{name}/{kind}", self.base), "token": token(n, name),
                "status": status })
        };
        let challenges = [challenge("http-01"), challenge("tls-alpn-01"), challenge("dns-01")];
        Ok(
            json!({ "status": status, "identifier": { "type": "dns", "value": order.names[name] }, "challenges": challenges }),
        )
    }

    /// RFC 7638, of the account's key.
    fn thumbprint(&self, account: &str) -> String {
        let (x, y) = self.inner.lock().unwrap().accounts[account].clone();
        b64(digest(&SHA256, format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes()))
    }

    /// Looks for the answer where the name leads.
    async fn looks(&self, kind: &str, name: &str, token: &str, authorization: &str) -> bool {
        let mut dns = self.dns.subscribe();
        let Ok((by_tls, by_http)) = dns.wait_for(Option::is_some).await.map(|dns| dns.unwrap()) else { return false };
        if kind == "http-01" {
            let Some(to) = by_http else { return false };
            let ask = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\n\r\n");
            let Ok(answer) = raw::exchange(to, ask).await else { return false };
            return answer.status == 200 && answer.body == authorization.as_bytes();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let Ok(stream) = connect(config, by_tls, name).await else { return false };
        let (_, agreed) = stream.get_ref();
        let Some([shown]) = agreed.peer_certificates() else { return false };
        let (_, shown) = x509_parser::parse_x509_certificate(shown).unwrap();
        // RFC 8737, section 3: one name, and the digest in a critical extension.
        let san = shown.subject_alternative_name().unwrap().unwrap();
        let one = matches!(san.value.general_names.as_slice(), [x509_parser::extensions::GeneralName::DNSName(dns)] if *dns == name);
        let expected = [&[4, 32][..], digest(&SHA256, authorization.as_bytes()).as_ref()].concat();
        let extension = shown.extensions().iter().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        agreed.alpn_protocol() == Some(b"acme-tls/1")
            && one
            && extension.is_some_and(|e| e.critical && e.value == expected)
    }

    fn issue(&self, csr: &[u8], names: &[String]) -> Result<String, Refused> {
        // The signature of the request is checked on the way.
        let mut request =
            CertificateSigningRequestParams::from_der(&csr.to_vec().into()).map_err(|_| (400, "badCSR"))?;
        let asked: HashSet<String> = request
            .params
            .subject_alt_names
            .iter()
            .filter_map(|name| match name {
                rcgen::SanType::DnsName(name) => Some(name.to_string()),
                _ => None,
            })
            .collect();
        if asked != names.iter().cloned().collect() {
            return Err((400, "badCSR"));
        }
        if self.inner.lock().unwrap().stale {
            #[expect(clippy::disallowed_methods, reason = "an authority has a clock of its own")]
            let now = std::time::SystemTime::now();
            request.params.not_after = (now + std::time::Duration::from_secs(86_400)).into();
        }
        let certificate = request.signed_by(&self.issued_by.issuer).map_err(|_| (500, "serverInternal"))?;
        Ok(format!("{}{}", certificate.pem(), self.issued_by.pem))
    }
}

fn token(n: usize, name: usize) -> String {
    b64(format!("token of order {n}, name {name}"))
}

/// Certificates of challenges are signed by nobody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
