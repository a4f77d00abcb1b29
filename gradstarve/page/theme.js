try { const theme = localStorage.getItem("gradstarve-theme"); if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme; } catch {}
