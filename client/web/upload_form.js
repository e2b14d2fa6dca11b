// The form that adds a portrait, on every page that has one.

import { readUploadForm } from "./avatars.js";
import { hideProblem, say, showProblem } from "./status.js";

const $ = (id) => document.getElementById(id);

/** Let the form add to `picker`, an AvatarPicker. */
export function bindUploadForm(picker) {
  $("upload-form").addEventListener("submit", (event) => {
    event.preventDefault();
    upload(picker);
  });
}

async function upload(picker) {
  const message = $("upload-message");
  hideProblem(message);
  try {
    const form = readUploadForm({ file: $("portrait-file"), consent: $("consent"), keep: $("keep") });
    setUploading(true);
    await picker.add(form);
    $("upload-form").reset();
    $("upload").open = false;
    say($("status"), "The portrait is added and chosen.");
    $("portraits").querySelector("input:checked")?.focus();
  } catch (error) {
    showProblem(message, error);
    (error.field ?? message).focus();
  } finally {
    setUploading(false);
  }
}

function setUploading(busy) {
  $("upload-button").disabled = busy;
  $("upload-button").textContent = busy ? "Looking at the picture…" : "Add portrait";
}
