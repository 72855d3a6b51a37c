-- wrk: requests as a mini program sends them, with the tokens of $TOKENS in turn: to $TARGET with a body of $BODY bytes, or to
-- $ROUTES routes in turn.
local requests, at = {}, 0
function init(_)
  local size, routes = tonumber(os.getenv("BODY") or "0"), tonumber(os.getenv("ROUTES") or "0")
  local tail = "\r\nHost: bench.example.test\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate, br\r\n" ..
    "Accept-Language: zh-CN,zh-Hans;q=0.9\r\nContent-Type: application/json\r\n" ..
    "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) " ..
    "Mobile/15E148 MicroMessenger/8.0.54 NetType/WIFI Language/zh_CN\r\n" ..
    "Referer: https://servicewechat.com/wx0123456789abcdef/12/page-frame.html\r\nX-WX-OPENID: forged\r\n" ..
    (os.getenv("CLOSE") and "Connection: close\r\n" or "") ..
    (size > 0 and "Content-Length: " .. size .. "\r\n" or "") .. "\r\n" .. string.rep("x", size)
  for token in io.lines(os.getenv("TOKENS")) do
    local target = routes > 0 and "/r" .. #requests * 7919 % routes .. "/orders" or os.getenv("TARGET")
    requests[#requests + 1] = (size > 0 and "POST " or "GET ") .. target ..
      " HTTP/1.1\r\nAuthorization: Bearer " .. token .. tail
  end
  math.randomseed(os.time())
  at = math.random(#requests)
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
