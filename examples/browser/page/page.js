// Calls the weather application by everything that a browser can speak, and shows what came back.
//
// JSON, server-sent events and WebSockets need no library. The clients of gRPC-Web and Connect are in
// clients/clients.js, which `python -m examples.browser.bundle` makes.

// The calls go to the server of this page, or to ?api=URL. That is another origin, which CORS has to allow.
const api = new URLSearchParams(location.search).get("api") ?? location.origin;
const weather = `${api}/weather`;
const NOON_IN_JULY = 4620;
const TIMEOUT_MS = 20_000;

const calls = {
  "JSON": () => json(`/v1/forecasts/midtown?hour=${NOON_IN_JULY}`),
  "JSON, POST": () => json("/weather.Weather/Forecast", {city: "midtown", hour: NOON_IN_JULY}),
  "JSON, an unknown city": () => json("/v1/forecasts/atlantis"),
  "lines of a stream": lines,
  "server-sent events": events,
  "WebSocket": converse,
};

async function json(path, body) {
  const post = {method: "POST", body: JSON.stringify(body), headers: {"content-type": "application/json"}};
  const answer = await fetch(weather + path, body && post);
  return {status: answer.status, requestId: answer.headers.get("x-request-id"), ...await answer.json()};
}

// Each line is one message. They are read as they come.
async function lines() {
  const path = "/v1/forecasts/midtown:watch?hours=3&intervalMs=20";
  const answer = await fetch(weather + path, {headers: {accept: "application/x-ndjson"}});
  let text = "", pieces = 0;
  for (const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
    const {value, done} = await reader.read();
    if (done) break;
    text += value;
    pieces += 1;
  }
  return {pieces, hours: text.trim().split("\n").map((line) => JSON.parse(line).hour ?? 0)};
}

function events() {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`${weather}/v1/forecasts/midtown:watch?hours=3`);
    const hours = [];
    source.onmessage = (event) => hours.push(JSON.parse(event.data).hour ?? 0);
    source.addEventListener("end", () => { source.close(); resolve({hours}); });
    source.onerror = () => { source.close(); reject(new Error("the events were refused")); };
  });
}

// A stream in both directions: each request is answered before the next one is sent.
function converse() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${weather.replace(/^http/, "ws")}/weather.Weather/Converse`);
    const cities = ["midtown", "northport"], answers = [];
    const next = () => socket.send(answers.length < cities.length ? JSON.stringify({city: cities[answers.length]}) : "");
    socket.onopen = next;
    socket.onmessage = (event) => { answers.push(JSON.parse(event.data)); next(); };
    socket.onclose = ({code}) => resolve({code, answers});
    socket.onerror = () => reject(new Error("the WebSocket failed"));
  });
}

async function bundled() {
  try {
    return (await import("./clients/clients.js")).calls(weather);
  } catch (error) {
    const missing = async () => { throw new Error(`no bundle of clients (${error.message})`); };
    return {"gRPC-Web and Connect": missing};
  }
}

async function show(name, call) {
  const row = document.getElementById("calls").insertRow();
  const [by, took, cameBack] = [row.insertCell(), row.insertCell(), row.insertCell()];
  by.textContent = name;
  const began = performance.now();
  let result;
  try {
    const late = new Promise((_, reject) => setTimeout(reject, TIMEOUT_MS, new Error("no answer in time")));
    result = await Promise.race([call(), late]);
  } catch (error) {
    result = {failed: String(error.message)};
    row.className = "failed";
  }
  took.textContent = `${(performance.now() - began).toFixed(1)} ms`;
  cameBack.textContent = JSON.stringify(result);
  return [name, result];
}

async function run() {
  document.getElementById("api").textContent = weather;
  const results = [];
  for (const [name, call] of Object.entries({...calls, ...await bundled()})) results.push(await show(name, call));
  return Object.fromEntries(results);
}

// What came back by name of the call, for tests.
window.results = run();
