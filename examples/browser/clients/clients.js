// Calls by gRPC-Web, with the official client and with that of Connect, and by Connect itself.
//
// weather.bin is a FileDescriptorSet. A project of your own would rather generate code from its .proto files.
import {create, createFileRegistry, fromBinary, toBinary} from "@bufbuild/protobuf";
import {FileDescriptorSetSchema} from "@bufbuild/protobuf/wkt";
import {ConnectError, createClient} from "@connectrpc/connect";
import {createConnectTransport, createGrpcWebTransport} from "@connectrpc/connect-web";
import {GrpcWebClientBase, MethodDescriptor, MethodType} from "grpc-web";
import descriptors from "./weather.bin";

const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors)).getService("weather.Weather");
const midtown = {city: "midtown", hour: 4620};
const TIMEOUT_MS = 10_000;

// By name of the call. `weather` is the base URL.
export function calls(weather) {
  return {
    ...official("gRPC-Web", weather),
    ...byConnect("gRPC-Web of Connect", createGrpcWebTransport({baseUrl: weather})),
    ...byConnect("Connect", createConnectTransport({baseUrl: weather})),
    ...byConnect("Connect, Protobuf", createConnectTransport({baseUrl: weather, useBinaryFormat: true})),
  };
}

// The client of npm's grpc-web, which streams in the form of text only.
function official(name, weather) {
  const client = new GrpcWebClientBase({format: "text"});
  const [forecast, watch] = [descriptor(service.method.forecast), descriptor(service.method.watch)];
  const inTime = () => ({deadline: String(Date.now() + TIMEOUT_MS), "x-page": "1"});
  const unary = (fields) => new Promise((resolve, reject) => {
    const seen = {};
    const request = create(service.method.forecast.input, fields);
    const call = client.rpcCall(weather + forecast.name, request, inTime(), forecast,
      (error, reply) => error ? reject(error) : resolve({...seen, ...plain(reply)}));
    call.on("status", (status) => seen.code = status.code);
  });
  const stream = () => new Promise((resolve, reject) => {
    const hours = [];
    const request = create(service.method.watch.input, {city: "midtown", hours: 3});
    client.serverStreaming(weather + watch.name, request, inTime(), watch)
      .on("data", (reply) => hours.push(reply.hour)).on("error", reject).on("end", () => resolve({hours}));
  });
  return {
    [name]: () => unary(midtown),
    [`${name}, stream`]: stream,
    [`${name}, an unknown city`]: () => unary({city: "atlantis"}).catch(({code, message}) => ({code, message})),
  };
}

function descriptor(method) {
  return new MethodDescriptor(
    `/${service.typeName}/${method.name}`,
    method.methodKind === "unary" ? MethodType.UNARY : MethodType.SERVER_STREAMING,
    Object, Object,
    (request) => toBinary(method.input, request),
    (bytes) => fromBinary(method.output, bytes));
}

function byConnect(name, transport) {
  const client = createClient(service, transport);
  const options = {timeoutMs: TIMEOUT_MS};
  const stream = async () => {
    const hours = [];
    for await (const reply of client.watch({city: "midtown", hours: 3}, options)) hours.push(reply.hour);
    return {hours};
  };
  const unknown = async () => {
    try {
      return plain(await client.forecast({city: "atlantis"}, options));
    } catch (error) {
      const {code, rawMessage} = ConnectError.from(error);
      return {code, message: rawMessage};
    }
  };
  return {
    [name]: async () => plain(await client.forecast(midtown, options)),
    [`${name}, stream`]: stream,
    [`${name}, an unknown city`]: unknown,
  };
}

function plain({city, hour, celsius}) {
  return {city, hour, celsius};
}
