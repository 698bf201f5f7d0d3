// The page of `keras-ds2 serve`: a microphone to /stream, a file to /transcribe.
import { Picture } from "./picture.js";

const PAUSE = 1.0; // seconds that end a line
const MOST_UNSENT = 10; // seconds of sound before a slow connection is given up
const LARGEST_DRAWN = 30e6; // bytes of a file; decoded, it is twenty times that

const $ = (id) => document.getElementById(id);
const picture = new Picture($("picture"));
const downloads = [...document.querySelectorAll("[data-format]")];
const model = await (await fetch("model")).json();
let words = [];
let lines = [];
let name = "";
let stop = null; // ends what is going on; null when nothing is

// === What is shown ===

function clear(newName) {
  name = newName;
  words = [];
  lines = [];
  $("said").replaceChildren();
  $("words").replaceChildren();
  $("guess").textContent = "";
  $("error").textContent = "";
  $("nothing").textContent = "Nothing yet.";
  $("nothing").hidden = false;
  downloads.forEach((button) => { button.disabled = true; });
}

/** Appends to a line only: what has been read out stays as it is. */
function showLine(index, text, guess = "") {
  const said = $("said");
  const box = said.parentElement;
  // Whoever has gone back to read is left there.
  const isAtEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 40;
  while (said.children.length <= index) said.append(document.createElement("p"));
  const line = said.children[index];
  const added = text.slice(line.textContent.length);
  if (added) line.append(added);
  $("guess").textContent = guess;
  $("nothing").hidden = Boolean(text || guess || lines.length);
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function showFinal(index, text, newWords) {
  showLine(index, text);
  if (text) lines.push(text);
  words.push(...newWords);
  for (const { word, start, end } of newWords) {
    const item = document.createElement("li");
    const times = document.createElement("small");
    times.textContent = `${start.toFixed(2)}–${end.toFixed(2)}`;
    item.append(word, " ", times);
    $("words").append(item);
  }
  downloads.forEach((button) => { button.disabled = !words.length; });
}

function showState(status, action) {
  $("status").textContent = status;
  const isIdle = stop === null;
  $("listen").textContent = action ?? "Start listening";
  $("listen").disabled = isIdle && !canListen();
  $("pauses").disabled = !isIdle;
}

function canListen() {
  return model.can_stream && Boolean(navigator.mediaDevices);
}

// === The microphone ===

async function listen() {
  clear("microphone");
  const problems = [];
  const stopped = new Promise((resolve) => { stop = resolve; });
  showState("Waiting for the microphone.", "Stop listening");
  const asked = navigator.mediaDevices.getUserMedia({
    // As it is: what makes it pleasant to people is not what was trained on.
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  let context, socket;
  try {
    context = new AudioContext(); // now: it needs the click
    // Who does not answer the browser's question may still change their mind.
    const media = await Promise.race([asked, stopped]);
    if (media) {
      socket = await open(problems);
      await context.audioWorklet.addModule("capture.js");
      const closed = new Promise((resolve) => { socket.onclose = resolve; });
      media.getTracks()[0].onended = () => { problems.push("The microphone is gone."); stop(); };
      await speak(context, media, socket, stopped, closed);
      const { code, reason } = await closed;
      if (code !== 1000 && !problems.length) problems.push(reason || `The connection was lost (${code}).`);
    }
  } catch (error) {
    problems.push(error.name === "NotAllowedError" ? "The browser does not allow the microphone." : error.message);
  }
  socket?.close();
  context?.close();
  asked.then((media) => media.getTracks().forEach((track) => track.stop()), () => {});
  stop = null;
  $("error").textContent = problems.join(" ");
  showState(problems.length ? "" : "Done.");
}

/** Opens the stream; resolves when the service is ready. */
function open(problems) {
  const url = new URL("stream", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  return new Promise((resolve, reject) => {
    socket.onclose = ({ reason, code }) => reject(new Error(problems[0] || reason || `The service cannot be reached (${code}).`));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "ready") resolve(socket);
      else if (message.type === "error") problems.push(message.message);
      else if (message.type === "final") showFinal(message.utterance, message.text, message.words);
      else {
        // A word is certain when the next one has begun.
        const end = Math.max(0, message.stable.lastIndexOf(" "));
        showLine(message.utterance, message.stable.slice(0, end), message.text.slice(end));
      }
    };
  });
}

/** Sends sound until somebody stops it or the service closes. */
async function speak(context, media, socket, stopped, closed) {
  const rate = context.sampleRate;
  socket.send(JSON.stringify({ type: "start", sampling_rate: rate, endpoint_silence: $("pauses").checked ? PAUSE : null }));
  const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  picture.begin(rate);
  $("caption").textContent = "Loudness of 64 bands of pitch, low ones below, drawn by this page; 10 seconds from left to right, then again from the left.";
  const flushed = new Promise((resolve) => {
    capture.port.onmessage = ({ data }) => {
      if (data === null) return resolve();
      if (socket.readyState !== WebSocket.OPEN) return;
      if (socket.bufferedAmount > MOST_UNSENT * 2 * rate) return socket.close(4000, "The connection is too slow.");
      socket.send(data);
      picture.push(Float32Array.from(new Int16Array(data), (sample) => sample / 32768));
    };
  });
  context.createMediaStreamSource(media).connect(capture);
  await context.resume();
  showState("Listening.", "Stop listening");
  await Promise.race([stopped, closed]);
  stop = () => socket.close(4000, "You did not wait for the last words.");
  showState("Waiting for the last words.", "Do not wait");
  capture.port.postMessage(null);
  await Promise.race([flushed, closed]);
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "end" }));
}

// === A file ===

async function transcribe(file) {
  const isTooLarge = file.size > model.max_upload;
  if (stop || isTooLarge) { // what there is stays
    $("error").textContent = stop ? `${file.name} has to wait until this is done.` : `${file.name} has more than ${model.max_upload / 1e6} MB.`;
    return;
  }
  clear(file.name.replace(/\.[^.]*$/, ""));
  const controller = new AbortController();
  stop = () => controller.abort();
  showState(`Transcribing ${file.name}.`, "Cancel");
  const { signal } = controller;
  let problem = "";
  let status = `${file.name} is done.`;
  try {
    const drawn = draw(file, signal);
    const body = new FormData();
    body.append("file", file);
    const response = await ask("transcribe?format=json", { method: "POST", body, signal });
    const transcript = await response.json();
    showFinal(0, transcript.text, transcript.words);
    if (!transcript.text) $("nothing").textContent = "No speech was found.";
    await drawn;
  } catch (error) {
    if (signal.aborted) status = "Canceled.";
    else problem = error.message;
  }
  controller.abort(); // what is still being drawn
  stop = null;
  $("error").textContent = problem;
  showState(problem ? "" : status);
}

async function draw(file, signal) {
  const caption = $("caption");
  picture.begin(16000);
  caption.textContent = "There is no picture of a file that is so large, or of a format that the browser does not know.";
  if (file.size > LARGEST_DRAWN) return;
  const context = new OfflineAudioContext(1, 1, 16000);
  const sound = await file.arrayBuffer().then((content) => context.decodeAudioData(content)).catch(() => null);
  if (!sound || signal.aborted) return;
  picture.begin(16000, sound.length / $("picture").width);
  picture.push(sound.getChannelData(0));
  const shown = sound.duration.toFixed(1);
  caption.textContent = `Loudness of 64 bands of pitch, low ones below, drawn by this page; ${shown} seconds from left to right.`;
}

/** Returns an answer that is good; throws what can be said of others. */
async function ask(path, request) {
  const response = await fetch(path, request).catch((error) => {
    throw new Error("The service cannot be reached.", { cause: error });
  });
  if (response.ok) return response;
  const content = await response.json().catch(() => ({}));
  const { detail } = content;
  const wait = response.headers.get("Retry-After");
  const text = detail ?? `The service answered ${response.status}.`;
  throw new Error(wait ? `${text} Wait ${wait} seconds.` : text);
}

// === Downloads ===

async function download(format) {
  let content = `${lines.join("\n")}\n`;
  if (format !== "txt") {
    const body = JSON.stringify({ words });
    const headers = { "Content-Type": "application/json" };
    try {
      const response = await ask(`subtitles?format=${format}`, { method: "POST", body, headers });
      content = await response.text();
    } catch (error) {
      $("error").textContent = error.message;
      return;
    }
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  link.download = `${name}.${format}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// === What may be done ===

$("model").textContent = `Model: ${model.name}`;
if (!model.can_stream) $("listen-note").textContent = `This model cannot listen, only transcribe files. ${model.obstacle}`;
else if (!navigator.mediaDevices) $("listen-note").textContent = "Browsers give a microphone only to pages from the same machine (localhost) or by HTTPS.";
$("listen").addEventListener("click", () => (stop ? stop() : listen()));
$("file").addEventListener("change", ({ target }) => {
  if (target.files.length) transcribe(target.files[0]);
  target.value = "";
});
downloads.forEach((button) => button.addEventListener("click", () => download(button.dataset.format)));
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault(); // else the browser leaves the page for the file
    $("drop").classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) transcribe(event.dataTransfer.files[0]);
  });
}
showState("");
