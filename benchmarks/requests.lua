-- For wrk: GETs one path with another user's token each time, and reports as JSON on stderr.
--   wrk -s requests.lua URL -- PATH TOKENS FIRST
-- TOKENS is a file with a token a line; FIRST counts from 0, and after the last comes the first.

local tokens, head, at = {}, nil, 0

function init(args)
  head = "GET " .. args[1] .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nAccept: */*\r\nAuthorization: Bearer "
  for token in io.lines(args[2]) do
    tokens[#tokens + 1] = token .. "\r\n\r\n"
  end
  at = tonumber(args[3])
end

function request()
  at = at % #tokens + 1
  return head .. tokens[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50":%.3f,"p99":%.3f,"refused":%d,"lost":%d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
