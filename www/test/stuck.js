// The package's worker, which can be made to do nothing for a while, as if it was suspended.

import "../src/worker.js";

self.addEventListener("message", ({ data: { stuckMs = 0 } }) => {
  const until = performance.now() + stuckMs;
  while (performance.now() < until);
});
