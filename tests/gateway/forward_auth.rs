//! Forward-auth with the real programs in front: nginx `auth_request` and Caddy `forward_auth`, configured as the README
//! shows.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::DEADLINE;
use crate::support::gateway::{Gateway, Member, ROUTES};

const TOKEN: &str = "front-proxy-token-0123";

/// A program between a client and the service; it asks the gateway about every request. It listens on a socket in its own
/// folder, so that no port has to be guessed.
struct Front {
    program: Child,
    folder: TempDir,
    gateway: Gateway,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Finds a program that `scripts/test.sh` installs.
fn program(name: &str) -> Command {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    Command::new(found.unwrap_or_else(|| panic!("{name} is not installed; scripts/test.sh does that")))
}

impl Front {
    async fn start(name: &str, configuration: impl FnOnce(&Gateway, &Path) -> String, arguments: &[&str]) -> Self {
        let service = format!("[[internal.service]]\nname = \"front\"\ntoken = \"{TOKEN}\"\n");
        let gateway = Gateway::with(&format!("{service}{ROUTES}")).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("configuration");
        std::fs::write(&path, configuration(&gateway, folder.path())).unwrap();
        let mut command = program(name);
        command.args(arguments).arg(&path).current_dir(folder.path());
        command.env("HOME", folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let program = command.stderr(std::fs::File::create(folder.path().join("log")).unwrap()).spawn().unwrap();
        let front = Self { program, folder, gateway };
        let ready = async {
            while UnixStream::connect(front.folder.path().join("socket")).await.is_err() {
                // Another program's start has no event to wait for.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, ready).await.is_err() {
            panic!("{name} did not start: {}", std::fs::read_to_string(front.folder.path().join("log")).unwrap());
        }
        front
    }

    /// `auth_request`, as in the README.
    async fn nginx() -> Self {
        let configuration = |gateway: &Gateway, folder: &Path| {
            let folder = folder.display();
            let verify = gateway.internal_url("/verify");
            let upstream = gateway.upstream.address();
            let credentials = STANDARD.encode(format!("front:{TOKEN}"));
            format!(
                r#"daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen unix:{folder}/socket;
        location / {{
            auth_request /_verify;
            auth_request_set $openid $upstream_http_x_wx_openid;
            auth_request_set $appid $upstream_http_x_wx_appid;
            auth_request_set $unionid $upstream_http_x_wx_unionid;
            auth_request_set $member $upstream_http_x_wxgate_member;
            proxy_set_header X-WX-OPENID $openid;
            proxy_set_header X-WX-APPID $appid;
            proxy_set_header X-WX-UNIONID $unionid;
            proxy_set_header X-Wxgate-Member $member;
            proxy_set_header Authorization "";
            proxy_http_version 1.1;
            proxy_pass http://{upstream};
        }}
        location = /_verify {{
            internal;
            proxy_pass {verify};
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Proxy-Authorization "Basic {credentials}";
        }}
    }}
}}
"#
            )
        };
        Self::start("nginx", configuration, &["-e", "stderr", "-c"]).await
    }

    /// `forward_auth`, as in the README.
    async fn caddy() -> Self {
        let configuration = |gateway: &Gateway, folder: &Path| {
            let folder = folder.display();
            let internal = gateway.internal_url("");
            let internal = internal.trim_start_matches("http://");
            let upstream = gateway.upstream.address();
            let credentials = STANDARD.encode(format!("front:{TOKEN}"));
            format!(
                r#"{{
    admin off
    auto_https off
}}
http://:80 {{
    bind unix/{folder}/socket
    route {{
        request_header -X-WX-*
        request_header -X-Wxgate-*
        forward_auth {internal} {{
            uri /verify?
            header_up Proxy-Authorization "Basic {credentials}"
            copy_headers X-WX-OPENID X-WX-APPID X-WX-UNIONID X-Wxgate-Member
        }}
        request_header -Authorization
        reverse_proxy {upstream}
    }}
}}
"#
            )
        };
        Self::start("caddy", configuration, &["run", "--adapter", "caddyfile", "--config"]).await
    }

    /// One request through the program: the answer's status, and its text.
    async fn get(&self, token: Option<&str>) -> (u16, String) {
        let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "GET /orders/7?x=1 HTTP/1.1\r\nHost: localhost\r\n{authorization}X-WX-OPENID: evil\r\nX-WX-UNIONID: evil\r\n\
             X-Wxgate-Member: evil\r\nConnection: close\r\n\r\n"
        );
        let exchange = async {
            let mut stream = UnixStream::connect(self.folder.path().join("socket")).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        let answer = tokio::time::timeout(DEADLINE, exchange).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// What every front must do.
    async fn proves_itself(&self) {
        let alice: Member = self.gateway.login("alice-nounion").await;
        let upstream = &self.gateway.upstream;
        for token in [None, Some("x")] {
            let (status, answer) = self.get(token).await;
            assert_eq!(status, 401, "{answer}");
            assert!(answer.to_ascii_lowercase().contains("www-authenticate: bearer"), "{answer}");
        }
        assert!(upstream.requests().is_empty(), "a refused request reached the service");

        let (status, answer) = self.get(Some(alice.token())).await;
        assert_eq!(status, 200, "{answer}");
        let requests = upstream.requests();
        let [request] = requests.as_slice() else { panic!("one request") };
        assert!(request.request_line.starts_with("GET /orders/7?x=1 "), "{}", request.request_line);
        assert_eq!(request.all("x-wx-openid"), [alice.openid()]);
        assert_eq!(request.all("x-wxgate-member"), [alice.id()]);
        assert!(request.all("x-wx-unionid").iter().all(|value| value.is_empty()), "an unknown unionid is nobody's");
        assert!(request.all("authorization").is_empty());

        let logout = self.gateway.client().post(self.gateway.url("/auth/logout")).bearer_auth(alice.token());
        assert_eq!(logout.send().await.unwrap().status(), 204);
        assert_eq!(self.get(Some(alice.token())).await.0, 401);
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[tokio::test]
async fn nginx_lets_members_pass_and_nobody_else() {
    Front::nginx().await.proves_itself().await;
}

#[tokio::test]
async fn caddy_lets_members_pass_and_nobody_else() {
    Front::caddy().await.proves_itself().await;
}
