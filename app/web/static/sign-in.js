// Opens a session with the key that is typed in, or with the ticket that the page's address carries behind its #.

const form = document.querySelector("form");
const button = form.querySelector("button");
const wrong = form.querySelector("[role=alert]");

async function signIn(given) {
  wrong.textContent = "";
  button.disabled = true;
  button.textContent = "Signing in…";
  try {
    const answer = await fetch("/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(given),
      referrerPolicy: "same-origin", // under the page's own, no-referrer, some browsers keep back which site this is
    });
    if (answer.ok) {
      new BroadcastChannel("offhook").postMessage("signed in"); // what other tabs show may be somebody else's now
      location.replace(form.dataset.after);
      return;
    }
    const { message } = await answer.json();
    wrong.textContent = message;
  } catch {
    wrong.textContent = "Offhook does not answer. Is it running, and can this device reach it?";
  }
  button.disabled = false;
  button.textContent = "Sign in";
  (given.ticket ? form.elements.name : form.elements.secret).focus(); // where to go on, also without a mouse
}

function useTicket() {
  const ticket = location.hash.slice(1);
  if (!ticket) return;
  history.replaceState(null, "", location.pathname + location.search); // it is good for nothing once it was used
  signIn({ ticket });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn({ name: form.elements.name.value.trim(), secret: form.elements.secret.value });
});
addEventListener("hashchange", useTicket); // another link, pasted where this page is open already
button.disabled = false;
useTicket();
