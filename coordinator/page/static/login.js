// The address that `hidenseek serve` prints has the token behind its #, which no server is sent.
const token = location.hash.slice(1);
if (token) {
  history.replaceState(null, "", location.pathname);
  document.querySelector("#token").value = token;
  document.querySelector("form").submit();
}
