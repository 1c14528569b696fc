// qlora render: the text that a chat template makes of messages, the way training and generation
// see it.
#pragma once

namespace CLI {
class App;
}

void add_render_command(CLI::App& app);
