-- What every script finds: the methods that wait, and guards around what would swallow an interruption.
-- It is given what Rust offers, and the value by which Rust knows a pause of ours. It returns the methods.
local native, token = ...
local yield, next, type, error = coroutine.yield, next, type, error
local raw_pcall, raw_xpcall, raw_resume, raw_rep = pcall, xpcall, coroutine.resume, string.rep
local interrupted, text = native.interrupted, native.text

-- Compiled code does not look at the instruction count.
jit.off()
jit.on = function() end

-- Errors are text to scripts; the one that ends a script that runs for too long is not theirs to catch.
local function settle(ok, ...)
  if ok then return true, ... end
  if interrupted() then error((...), 0) end
  return false, text((...))
end

function pcall(...) return settle(raw_pcall(...)) end

function xpcall(call, handler, ...)
  return settle(raw_xpcall(call, function(problem) return handler(text(problem)) end, ...))
end

function coroutine.resume(...) return settle(raw_resume(...)) end

-- One call may fill the memory before anybody counts.
function string.rep(piece, count, between)
  if type(count) == "number" and count > 0 and (#piece + #(between or "")) * count > 67108864 then
    error("resulting string too large", 2)
  end
  return raw_rep(piece, count, between)
end

debug = { traceback = native.traceback }
os.exit = function() error("os.exit is not for scripts of a proxy", 2) end

EnvoyTimestampResolution = { MILLISECOND = 0, MICROSECOND = 1 }

local methods = {}

function methods.body(self, always_wrap)
  local wait, body = native.body(self, always_wrap)
  if wait then return yield(token) end
  return body
end

function methods.bodyChunks(self)
  native.body_chunks(self)
  return function()
    if native.chunk(self) then return yield(token) end
  end
end

function methods.trailers(self)
  local wait, trailers = native.trailers(self)
  if wait then return yield(token) end
  return trailers
end

function methods.httpCall(self, ...)
  if native.http_call(self, ...) then return yield(token) end
end

function methods.respond(self, headers, body)
  native.respond(self, headers, body)
  return yield(token)
end

return methods
